"""`rlhf evaluate reward`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    reward = commands.add_parser("reward", help="a reward model's report card, as JSON and as a page")
    reward.add_argument("--model", required=True, metavar="RUN", help="run folder of stage 2, or its model/")
    reward.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="files of rankings or pairs, or demo:rankings_dev"
    )
    reward.add_argument("--out", required=True, metavar="DIR", help="folder for report_card.json and .html")
    reward.add_argument("--limit", type=int, metavar="N", help="use only the first N rows of each file")
    reward.add_argument(
        "--on-bad-row", choices=("error", "skip"), default="error", help="at a bad row (default: %(default)s)"
    )
    reward.set_defaults(handler=run_evaluate_reward)


def run_evaluate_reward(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate reward`."""
    from rlhf.evaluate.reward.command import evaluate_reward

    evaluate_reward(
        arguments.model, arguments.data, arguments.out, limit=arguments.limit, on_bad_row=arguments.on_bad_row
    )
    return 0
