"""`rlhf data judge`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rlhf.cli.endpoint_flags import add_endpoint_flags
from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill

SHIPPED = ("conversation", "harmless", "translation", "general")


class _PrintCriteria(argparse.Action):
    """Prints a set of criteria and exits, even if required flags are missing."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        from rlhf.curate.judge.criteria import criteria_text

        sys.stdout.write(criteria_text(str(values)))
        parser.exit()


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.judge.command import JudgeOptions
    from rlhf.curate.judge.pairwise import JudgeSettings

    shipped = "print a shipped set as YAML and exit"
    parser.add_argument("--print-criteria", action=_PrintCriteria, choices=SHIPPED, help=shipped)
    add_flags(parser, JudgeOptions)
    add_flags(parser, JudgeSettings)
    add_endpoint_flags(parser)


def run_judge(arguments: argparse.Namespace) -> int:
    """`rlhf data judge`."""
    from rlhf.curate.endpoint.options import EndpointOptions
    from rlhf.curate.judge.command import JudgeOptions, run
    from rlhf.curate.judge.pairwise import JudgeSettings

    return run(fill(JudgeOptions, arguments), fill(JudgeSettings, arguments), fill(EndpointOptions, arguments))


COMMAND = Command(
    "judge",
    "rank answers by a language model: Korean criteria, every pair in both orders",
    run_judge,
    _flags,
    description="G-Eval: a model compares two answers by each criterion in words and scores both from 1 to 5. Every "
    "pair is judged in both orders; position bias and self-agreement are reported. Writes rankings for stage 2. "
    "Replies are kept beside OUT: an interrupted run, or one with another --min-sum, pays for nothing twice.",
    epilog="examples:\n"
    "  rlhf data judge --in sampled.jsonl --criteria conversation --endpoint https://api.openai.com/v1 \\\n"
    "      --model gpt-4o --max-cost 5 --price-in 0.0025 --price-out 0.01 --out judged.jsonl\n"
    "  rlhf data judge --print-criteria conversation > mine.yaml   (edit it, then --criteria mine.yaml)\n"
    "then: deepspeed scripts/step2_reward.py --config ... data.train=judged.jsonl",
)
