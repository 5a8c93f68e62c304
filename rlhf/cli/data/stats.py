"""`rlhf data stats`: what is in data files, as text or as a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.check.cost import Counting

    files = "JSONL, a JSON array, CSV, or a datasets folder"
    parser.add_argument("files", nargs="+", metavar="FILE", help=files)
    parser.add_argument("--html", type=Path, metavar="OUT.html", help="write one self-contained page")
    add_flags(parser, Counting, skip=("characters_per_token",))
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the topics (default: %(default)s)")


def run_data_stats(arguments: argparse.Namespace) -> int:
    """`rlhf data stats`."""
    from rlhf.curate.check.cost import Counting
    from rlhf.curate.stats.counts import file_stats
    from rlhf.curate.stats.page import render_text, write_page
    from rlhf.html.page import require_matplotlib

    if arguments.html is not None:
        require_matplotlib()
    stats = file_stats(arguments.files, fill(Counting, arguments), arguments.seed)
    if arguments.html is None:
        sys.stdout.write(f"{render_text(stats)}\n")
        return 0
    write_page(stats, arguments.html)
    sys.stdout.write(f"{arguments.html}: {stats.rows:,} rows\n")
    return 0


COMMAND = Command(
    "stats",
    "lengths, sources, politeness, topics, labels and scores, as text or as a page",
    run_data_stats,
    _flags,
    epilog="examples:\n"
    "  rlhf data stats train.jsonl\n"
    "  rlhf data stats train.jsonl dev.jsonl --html stats.html --tokenizer runs/sft/model",
)
