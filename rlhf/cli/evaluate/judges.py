"""The judges of an evaluation: flags, and the endpoints they name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.cli.endpoint_flags import add_endpoint_flags, budget_of, open_endpoint
from rlhf.cli.judge_flags import add_judge_flags, judge_settings_of

if TYPE_CHECKING:
    from rlhf.curate.judge.pairwise import JudgeSettings
    from rlhf.evaluate.geval.judging import OpenEndpoint

PREFIX = "judge-"  # --temperature and the like are of the models that answer


def add_judges(command: argparse.ArgumentParser) -> None:
    """Who judges, by what, and how it is asked; every pair is shown in both orders."""
    command.add_argument(
        "--judge",
        action="append",
        default=[],
        metavar="URL=MODEL",
        help="a judge, e.g. http://127.0.0.1:8000/v1=my-judge; repeat it for several",
    )
    add_judge_flags(command, PREFIX)
    add_endpoint_flags(command)


def settings_of(arguments: argparse.Namespace) -> JudgeSettings:
    """How the judges are asked. Raises as `judge_settings_of`."""
    return judge_settings_of(arguments, PREFIX)


def endpoints_of(arguments: argparse.Namespace) -> OpenEndpoint:
    """Opens a judge; replies are kept in --cache, or OUT/judge.answers.sqlite. All judges share the budget."""
    budget = budget_of(arguments)
    arguments.cache = arguments.cache or Path(arguments.out) / "judge.answers.sqlite"
    return lambda judge: open_endpoint(judge.url, judge.model, arguments, budget)
