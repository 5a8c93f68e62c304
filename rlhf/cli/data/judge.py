"""`rlhf data judge`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from rlhf.cli.endpoint_flags import add_endpoint_flags, budget_of, open_endpoint
from rlhf.cli.judge_flags import add_judge_flags, judge_settings_of
from rlhf.cli.parser import Commands

if TYPE_CHECKING:
    from rlhf.curate.endpoint.client import Endpoint
    from rlhf.curate.judge.command import JudgePlan

SHIPPED = ("conversation", "harmless", "translation", "general")
_DESCRIPTION = (
    "G-Eval: a model compares two answers by each criterion in words and scores both from 1 to 5. "
    "Every pair is\njudged in both orders; position bias and self-agreement are reported. Writes rankings for "
    "stage 2.\nReplies are kept beside OUT: an interrupted run, or one with another --min-sum, pays for nothing "
    "twice."
)
_EXAMPLES = (
    "examples:\n"
    "  rlhf data judge --in sampled.jsonl --criteria conversation --endpoint https://api.openai.com/v1 \\\n"
    "      --model gpt-4o --max-cost 5 --price-in 0.0025 --price-out 0.01 --out judged.jsonl\n"
    "  rlhf data judge --print-criteria conversation > mine.yaml   (edit it, then --criteria mine.yaml)\n"
    "then: deepspeed scripts/step2_reward.py --config ... data.train=judged.jsonl"
)


class _PrintCriteria(argparse.Action):
    """Prints a set and ends, whatever other flags are missing."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        from rlhf.curate.judge.criteria import criteria_text

        sys.stdout.write(criteria_text(str(values)))
        parser.exit()


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "judge",
        help="rank answers by a language model: Korean criteria, every pair in both orders",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    command.add_argument(
        "--print-criteria",
        action=_PrintCriteria,
        choices=SHIPPED,
        help="print a shipped set as YAML, to be edited, and end",
    )
    command.add_argument(
        "--in", dest="rows", required=True, metavar="FILE", help="what `rlhf data sample` wrote, or any ranking file"
    )
    command.add_argument(
        "--endpoint", required=True, metavar="URL", help="chat endpoint, e.g. http://127.0.0.1:8000/v1"
    )
    command.add_argument("--model", required=True, metavar="NAME", help="the judge, as the endpoint calls it")
    command.add_argument("--out", required=True, metavar="FILE", help="rankings to write (JSONL)")
    add_judge_flags(command)
    command.add_argument(
        "--pairs",
        choices=("all", "ring"),
        default="all",
        help="of K answers judge all K(K-1)/2 pairs, or K pairs in which each answer meets two (default: %(default)s)",
    )
    _add_keeping(command)
    command.add_argument("--limit", type=int, metavar="N", help="only the first N usable rows")
    command.add_argument(
        "--on-bad-row", choices=("error", "skip"), default="error", help="at a bad row (default: %(default)s)"
    )
    add_endpoint_flags(command)
    command.set_defaults(handler=run_judge)


def _add_keeping(command: argparse.ArgumentParser) -> None:
    """Which pairs become rankings."""
    command.add_argument(
        "--keep",
        choices=("rankings", "margins"),
        default="rankings",
        help="drop pairs that tie or are low, or keep all with scores for train.margin=scores (default: %(default)s)",
    )
    command.add_argument(
        "--min-sum",
        type=float,
        metavar="X",
        help="a pair with both sums below this is low (default: two thirds of the highest sum, 20 of 30)",
    )
    command.add_argument(
        "--min-gap", type=float, default=0.0, metavar="X", help="sums at most this far apart tie (default: %(default)s)"
    )


def run_judge(arguments: argparse.Namespace) -> int:
    """`rlhf data judge`."""
    from dataclasses import replace

    from rlhf.curate.judge.command import extent, gives_logprobs, judge_file, verdict_on_judge

    plan, budget = _plan(arguments), budget_of(arguments)
    settings = replace(judge_settings_of(arguments), pairs=arguments.pairs)

    def opened() -> Endpoint:
        return open_endpoint(arguments.endpoint, arguments.model, arguments, budget)

    wanted = extent(plan, settings, budget)
    if arguments.weighting == "auto" and gives_logprobs(opened, plan, settings):
        settings = replace(settings, weighting="logprobs")
    sys.stderr.write(f"{wanted.described(settings)}\n")
    with opened() as endpoint:
        output, report = judge_file(plan, settings, endpoint, wanted.rows)
        usage = endpoint.usage
    said = verdict_on_judge(report, plan.criteria.highest_sum)
    again = f"; {report.asked_again} asked again for their form" if report.asked_again else ""
    sys.stderr.write(f"{output.summary()}\n{said}\n{usage.described()}{again}\n")
    return 0


def _plan(arguments: argparse.Namespace) -> JudgePlan:
    from pathlib import Path

    from rlhf.curate.judge.command import JudgePlan
    from rlhf.curate.judge.criteria import load_criteria
    from rlhf.errors import ConfigError

    for flag, value, least in (("--limit", arguments.limit, 1), ("--min-gap", arguments.min_gap, 0)):
        if value is not None and value < least:
            raise ConfigError(f"is {value}", where=flag, expected=f"at least {least}")
    return JudgePlan(
        rows=arguments.rows,
        out=Path(arguments.out),
        criteria=load_criteria(arguments.criteria),
        keep=arguments.keep,
        min_sum=arguments.min_sum,
        min_gap=arguments.min_gap,
        limit=arguments.limit,
        on_bad_row=arguments.on_bad_row,
    )
