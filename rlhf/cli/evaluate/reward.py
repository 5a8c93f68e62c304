"""`rlhf evaluate reward`."""

from __future__ import annotations

import argparse
from typing import get_args

from rlhf.cli.parser import Command
from rlhf.config.flag_values import BAD_ROW, SCORING_DTYPE, Dtype


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder of stage 2, or its model/")
    data = "files of rankings or pairs, or demo:rankings_dev"
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help=data)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for report_card.json and .html")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N rows of each file")
    parser.add_argument("--on-bad-row", choices=("error", "skip"), default="error", help=f"{BAD_ROW} (default: error)")
    parser.add_argument("--dtype", choices=get_args(Dtype), default="auto", help=f"{SCORING_DTYPE} (default: auto)")


def run_evaluate_reward(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate reward`."""
    from rlhf.evaluate.reward.command import evaluate_reward

    evaluate_reward(
        arguments.model,
        arguments.data,
        arguments.out,
        limit=arguments.limit,
        on_bad_row=arguments.on_bad_row,
        dtype=arguments.dtype,
    )
    return 0


COMMAND = Command(
    "reward",
    "a reward model's report card, as JSON and as a page",
    run_evaluate_reward,
    _flags,
    files=("data",),
)
