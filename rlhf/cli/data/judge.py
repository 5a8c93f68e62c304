"""`rlhf data judge`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from rlhf.cli.endpoint_flags import ENDPOINT, add_endpoint_flags, budget_of, open_endpoint
from rlhf.cli.judge_flags import add_judge_flags, judge_settings_of
from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill

if TYPE_CHECKING:
    from rlhf.curate.endpoint.client import Endpoint

SHIPPED = ("conversation", "harmless", "translation", "general")


class _PrintCriteria(argparse.Action):
    """Prints a set and ends, whatever other flags are missing."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        from rlhf.curate.judge.criteria import criteria_text

        sys.stdout.write(criteria_text(str(values)))
        parser.exit()


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.judge.command import JudgePlan

    shipped = "print a shipped set as YAML, for editing, and exit"
    parser.add_argument("--print-criteria", action=_PrintCriteria, choices=SHIPPED, help=shipped)
    add_flags(parser, JudgePlan, only=("rows",))
    parser.add_argument("--endpoint", required=True, metavar="URL", help=ENDPOINT)
    parser.add_argument("--model", required=True, metavar="NAME", help="the judge, as the endpoint names it")
    add_flags(parser, JudgePlan, only=("out",))
    add_judge_flags(parser)
    add_flags(parser, JudgePlan, skip=("rows", "out", "criteria"))
    add_endpoint_flags(parser)


def run_judge(arguments: argparse.Namespace) -> int:
    """`rlhf data judge`."""
    from dataclasses import replace

    from rlhf.curate.judge.command import JudgePlan, extent, gives_logprobs, judge_file, verdict_on_judge

    plan, budget, settings = fill(JudgePlan, arguments), budget_of(arguments), judge_settings_of(arguments)

    def opened() -> Endpoint:
        return open_endpoint(arguments.endpoint, arguments.model, arguments, budget)

    wanted = extent(plan, settings, budget)
    if arguments.weighting == "auto" and gives_logprobs(opened, plan, settings):
        settings = replace(settings, weighting="logprobs")
    sys.stderr.write(f"{wanted.described(settings)}\n")
    with opened() as endpoint:
        output, report = judge_file(plan, settings, endpoint, wanted.rows)
        usage = endpoint.usage
    verdict = verdict_on_judge(report, plan.criteria.highest_sum)
    again = f"; {report.asked_again} asked again for their form" if report.asked_again else ""
    sys.stderr.write(f"{output.summary()}\n{verdict}\n{usage.described()}{again}\n")
    return 0


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
