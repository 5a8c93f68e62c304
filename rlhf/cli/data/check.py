"""`rlhf data check`: whether a file can be trained on, what is wrong with it, and what it would cost."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands
from rlhf.config.flags import add_flags, fill

EPILOG = """examples:
  rlhf data check train.jsonl
  rlhf data check train.jsonl --stage sft --tokenizer runs/sft/model --max-length 1024
  rlhf data check dev.jsonl --against train.jsonl
  rlhf data check train.jsonl --stage sft --epochs 3 --price 0.03/1k --tokens-per-second 9000 --gpus 4

exit status: 0 usable, 1 not usable as it is, 2 not readable as rows (or a wrong flag)"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    from rlhf.curate.check.command import CheckOptions

    check = commands.add_parser(
        "check",
        help="what a file is, which stages can use it, what is wrong with it, and the cost",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(check, CheckOptions)
    check.set_defaults(handler=run_data_check)


def run_data_check(arguments: argparse.Namespace) -> int:
    """`rlhf data check`; the report's status."""
    from rlhf.curate.check.command import CheckOptions, run

    return run(fill(CheckOptions, arguments))
