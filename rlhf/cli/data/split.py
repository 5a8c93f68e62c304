"""`rlhf data split`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands
from rlhf.config.flags import add_flags, fill


def add(commands: Commands) -> None:
    """The command and its flags."""
    from rlhf.curate.split.command import SplitOptions

    parser = commands.add_parser(
        "split",
        help="divide data into train, dev and test by prompt, alike for all stages",
        description="Divides files so that no test prompt, nor a near-duplicate of one, is in any training set. Give "
        "the files of all stages together, or one after the other with the same --out-dir: its assignments.jsonl "
        "holds the split of every prompt. Writes DIR/<name>_{train,dev,test}.jsonl with manifests.",
        epilog="example: rlhf data split --in sft.jsonl preference.jsonl prompts.jsonl --out-dir data/split",
    )
    add_flags(parser, SplitOptions)
    parser.set_defaults(handler=run_data_split)


def run_data_split(arguments: argparse.Namespace) -> int:
    """`rlhf data split`."""
    from rlhf.curate.split.command import SplitOptions, run

    return run(fill(SplitOptions, arguments))
