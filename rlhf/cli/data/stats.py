"""`rlhf data stats`: statistics of data files, as text or as a page."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands
from rlhf.config.flags import add_flags, fill

EPILOG = """examples:
  rlhf data stats train.jsonl
  rlhf data stats train.jsonl dev.jsonl --html stats.html --tokenizer runs/sft/model"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    from rlhf.curate.stats.command import StatsOptions

    stats = commands.add_parser(
        "stats",
        help="lengths, sources, politeness, topics, labels and scores, as text or as a page",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(stats, StatsOptions)
    stats.set_defaults(handler=run_data_stats)


def run_data_stats(arguments: argparse.Namespace) -> int:
    """`rlhf data stats`."""
    from rlhf.curate.stats.command import StatsOptions, run

    return run(fill(StatsOptions, arguments))
