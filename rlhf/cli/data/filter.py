"""`rlhf data filter`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands
from rlhf.config.flags import add_flags, fill


def add(commands: Commands) -> None:
    """The command and its flags."""
    from rlhf.curate.filter.command import FilterOptions

    parser = commands.add_parser(
        "filter",
        help="drop rows: short, long, repeated, foreign, rude, personal, boilerplate",
        description="Copies the rows of a data file that pass every filter given. Filters run in the order below, "
        "and a row counts under the first that drops it. OUT.manifest.json holds the counts with examples. "
        "The prompt of a row is everything before the answer, without the system turn.",
        epilog="example: rlhf data filter --in prompts.jsonl --out kept.jsonl --min-chars 16 --dedup cosine:0.5\n"
        "the filter of 2023, row for row: --min-chars 16 --dedup cosine:0.5 --vectorizer vaiv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser, FilterOptions)
    parser.set_defaults(handler=run_data_filter)


def run_data_filter(arguments: argparse.Namespace) -> int:
    """`rlhf data filter`."""
    from rlhf.curate.filter.command import FilterOptions, run

    return run(fill(FilterOptions, arguments))
