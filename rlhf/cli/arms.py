"""`rlhf arms`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="YAML file of the comparison, or recipe:demo/arms")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of it")
    out = "folder of the runs, of the answers and of the report"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)


def run_arms(arguments: argparse.Namespace) -> int:
    """`rlhf arms`; status 1 when an arm is not finished."""
    from rlhf.demo.topic import topic_of
    from rlhf.runs.arms.command import ArmsComparison

    return ArmsComparison(arguments.config, arguments.out, arguments.overrides, topic_of=topic_of).run()


COMMAND = Command(
    "arms",
    "best-of-n distilled, DPO, PPO and GRPO from one SFT model: which to ship",
    run_arms,
    _flags,
    description="Trains every arm of a configuration from one SFT model and one file of preferences, and judges all on "
    "the same held-out prompts by a reward model that none of them learned from: scores with paired intervals "
    "corrected for the number of comparisons, KL, measures of the text, people's votes where there are any, seconds "
    "and tokens. Says which to ship, or how many prompts would tell. Given again, the command goes on where it was "
    "stopped. Writes arms.json, report.json, arms.md and arms.html.",
    epilog="examples:\n"
    "  rlhf arms configs/demo/arms.yaml --out runs/arms\n"
    "  rlhf arms configs/demo/arms.yaml labels=labels.jsonl held_out.limit=500 --out runs/arms",
)
