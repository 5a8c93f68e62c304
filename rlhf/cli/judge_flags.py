"""Flags of every command that asks judges, and the judges they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.cli.endpoint_flags import add_endpoint_flags, budget_of, open_endpoint
from rlhf.config.flags import add_flags, fill

if TYPE_CHECKING:
    from rlhf.curate.judge.pairwise import JudgeSettings
    from rlhf.evaluate.judging import OpenEndpoint

# In `rlhf evaluate`, --temperature and the like belong to the models that answer.
JUDGE_NAMES = {"samples": "--judge-samples", "temperature": "--judge-temperature", "max_tokens": "--judge-max-tokens"}


def add_judge_flags(
    parser: argparse.ArgumentParser, *, names: dict[str, str] | None = None, skip: tuple[str, ...] = ()
) -> None:
    """By which criteria a judge scores, and how it is asked."""
    from rlhf.curate.judge.command import JudgePlan
    from rlhf.curate.judge.pairwise import JudgeSettings

    add_flags(parser, JudgePlan, only=("criteria",), criteria="conversation")
    add_flags(parser, JudgeSettings, names=names, skip=skip, weighting="auto")


def judge_settings_of(arguments: argparse.Namespace, names: dict[str, str] | None = None) -> JudgeSettings:
    """How judges are asked. Raises ConfigError, naming the flag, for a number that is out of range."""
    from rlhf.curate.judge.pairwise import JudgeSettings

    weighting = "samples" if arguments.weighting == "auto" else arguments.weighting
    return fill(JudgeSettings, arguments, names=names, weighting=weighting)


def add_judges(parser: argparse.ArgumentParser) -> None:
    """The judges of an evaluation; every pair is shown in both orders."""
    judge = "a judge, e.g. http://127.0.0.1:8000/v1=my-judge; may be repeated"
    parser.add_argument("--judge", action="append", default=[], metavar="URL=MODEL", help=judge)
    add_judge_flags(parser, names=JUDGE_NAMES, skip=("pairs",))
    add_endpoint_flags(parser)


def endpoints_of(arguments: argparse.Namespace) -> OpenEndpoint:
    """Opens a judge; replies are kept in --cache, or OUT/judge.answers.sqlite. All judges share the budget."""
    budget, cache = budget_of(arguments), Path(arguments.out) / "judge.answers.sqlite"
    return lambda judge: open_endpoint(judge.url, judge.model, arguments, budget, cache)
