"""`rlhf data stats`: what is in data files, as text or as a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.parser import Commands

EPILOG = """examples:
  rlhf data stats train.jsonl
  rlhf data stats train.jsonl dev.jsonl --html stats.html --tokenizer runs/sft/model"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    stats = commands.add_parser(
        "stats",
        help="lengths, sources, politeness, topics, labels and scores, as text or as a page",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stats.add_argument("files", nargs="+", metavar="FILE", help="JSONL, a JSON array, CSV, or a datasets folder")
    stats.add_argument("--html", type=Path, metavar="OUT.html", help="write one page that stands alone")
    stats.add_argument("--tokenizer", default="", metavar="DIR", help="count with this model's (default: estimate)")
    stats.add_argument("--template", metavar="NAME", help="template for a tokenizer without one: kullm, or a file")
    stats.add_argument("--seed", type=int, default=0, metavar="N", help="of the topics (default: %(default)s)")
    stats.set_defaults(handler=run_data_stats)


def run_data_stats(arguments: argparse.Namespace) -> int:
    """`rlhf data stats`."""
    from rlhf.curate.stats.counts import file_stats
    from rlhf.curate.stats.page import render_text, write_page
    from rlhf.html.page import require_matplotlib

    if arguments.html is not None:
        require_matplotlib()
    stats = file_stats(arguments.files, arguments.tokenizer, arguments.template, arguments.seed)
    if arguments.html is None:
        sys.stdout.write(f"{render_text(stats)}\n")
        return 0
    write_page(stats, arguments.html)
    sys.stdout.write(f"{arguments.html}: {stats.rows:,} rows\n")
    return 0
