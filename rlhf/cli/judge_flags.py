"""The judges of an evaluation: flags, and the endpoints they name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rlhf.cli.endpoint_flags import add_endpoint_flags
from rlhf.config.flags import add_flags, fill

if TYPE_CHECKING:
    from rlhf.evaluate.geval.judging import JudgePanel

# --temperature and the like belong to the models that answer.
NAMES = {"samples": "--judge-samples", "temperature": "--judge-temperature", "max_tokens": "--judge-max-tokens"}


def add_judges(parser: argparse.ArgumentParser) -> None:
    """Who judges, by which criteria, and how; every pair is shown in both orders."""
    from rlhf.curate.judge.command import JudgeOptions
    from rlhf.curate.judge.pairwise import JudgeSettings

    judge = "a judge, e.g. http://127.0.0.1:8000/v1=my-judge; may be repeated"
    parser.add_argument("--judge", action="append", default=[], metavar="URL=MODEL", help=judge)
    add_flags(parser, JudgeOptions, only=("criteria",))
    add_flags(parser, JudgeSettings, names=NAMES, skip=("pairs",))
    add_endpoint_flags(parser)


def panel_of(arguments: argparse.Namespace) -> JudgePanel:
    """The judges; replies are stored in --cache, or OUT/judge.answers.sqlite, and all judges share the budget.

    Raises: ConfigError, naming the flag, for a judge, a criteria set or a number that cannot be used.
    """
    from rlhf.curate.endpoint.budget import Budget
    from rlhf.curate.endpoint.client import Endpoint
    from rlhf.curate.endpoint.options import EndpointOptions
    from rlhf.curate.judge.criteria import load_criteria
    from rlhf.curate.judge.pairwise import JudgeSettings
    from rlhf.evaluate.geval.judging import JudgePanel, judge_names

    service, cache = fill(EndpointOptions, arguments), arguments.out / "judge.answers.sqlite"
    budget, weigh = Budget(service), arguments.weighting == "auto"
    weighting = "samples" if weigh else arguments.weighting
    return JudgePanel(
        judge_names(arguments.judge),
        lambda judge: Endpoint(judge.url, judge.model, service, budget=budget, cache=cache),
        load_criteria(arguments.criteria),
        fill(JudgeSettings, arguments, names=NAMES, weighting=weighting),
        weigh=weigh,
    )
