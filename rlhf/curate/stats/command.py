"""`rlhf data stats`: statistics of data files, as text or as a page."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rlhf.config.flags import flag


@dataclass(frozen=True, slots=True)
class StatsOptions:
    """The files, how their tokens are counted, and where the page goes."""

    files: tuple[str, ...] = flag(
        ..., "JSONL, a JSON array, CSV, or a datasets folder", metavar="FILE", nargs="+", positional=True
    )
    html: Path | None = flag(None, "write a self-contained page", metavar="OUT.html")
    tokenizer: str = flag("", "count with the tokenizer of this model folder (default: estimate)", metavar="DIR")
    template: str | None = flag(
        None, "chat template for a tokenizer without one: kullm, or a Jinja file", metavar="NAME"
    )
    seed: int = flag(0, "seed of the topic clusters")


def run(options: StatsOptions) -> int:
    """Counts, then prints a summary or writes the page."""
    from rlhf.curate.stats.counts import file_stats
    from rlhf.curate.stats.page import render_text, write_page
    from rlhf.html.page import require_matplotlib

    if options.html is not None:
        require_matplotlib()
    stats = file_stats(options.files, options.tokenizer, options.template, options.seed)
    if options.html is None:
        sys.stdout.write(f"{render_text(stats)}\n")
        return 0
    write_page(stats, options.html)
    sys.stdout.write(f"{options.html}: {stats.rows:,} rows\n")
    return 0
