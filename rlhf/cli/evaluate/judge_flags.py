"""Flags of the kinds that ask a judge, and the judge they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.cli.endpoint_flags import add_endpoint_flags, budget_of, open_endpoint

if TYPE_CHECKING:
    from rlhf.curate.judge import JudgeSettings
    from rlhf.evaluate.judging import OpenEndpoint


def add_judge_flags(command: argparse.ArgumentParser) -> None:
    """Who judges, by what, and how it is asked; every pair is shown in both orders."""
    command.add_argument(
        "--judge",
        action="append",
        default=[],
        metavar="URL=MODEL",
        help="a judge, e.g. http://127.0.0.1:8000/v1=my-judge; repeat it for several",
    )
    command.add_argument(
        "--criteria", default="conversation", metavar="NAME", help="a shipped set or a YAML file (default: %(default)s)"
    )
    command.add_argument(
        "--weighting",
        choices=("auto", "logprobs", "samples"),
        default="auto",
        help="mean score under the token probabilities, or over several replies; auto tries one request "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--judge-samples",
        type=int,
        default=5,
        metavar="N",
        help="replies to average without probabilities (default: %(default)s)",
    )
    command.add_argument(
        "--judge-temperature", type=float, default=1.0, metavar="T", help="of those replies (default: %(default)s)"
    )
    command.add_argument(
        "--judge-max-tokens", type=int, default=2048, metavar="N", help="longest reply (default: %(default)s)"
    )
    command.add_argument(
        "--form-retries",
        type=int,
        default=2,
        metavar="N",
        help="ask again for unreadable scores (default: %(default)s)",
    )
    add_endpoint_flags(command)


def judge_settings_of(arguments: argparse.Namespace) -> JudgeSettings:
    """How judges are asked. Raises ConfigError, naming the flag, for a number that cannot be."""
    from rlhf.curate.judge import JudgeSettings
    from rlhf.errors import ConfigError

    for flag, least in (("judge_samples", 1), ("judge_max_tokens", 1), ("form_retries", 0)):
        value = getattr(arguments, flag)
        if value < least:
            raise ConfigError(f"is {value}", where=f"--{flag.replace('_', '-')}", expected=f"at least {least}")
    return JudgeSettings(
        weighting="samples" if arguments.weighting == "auto" else arguments.weighting,
        samples=arguments.judge_samples,
        temperature=arguments.judge_temperature,
        max_tokens=arguments.judge_max_tokens,
        form_retries=arguments.form_retries,
    )


def endpoints_of(arguments: argparse.Namespace) -> OpenEndpoint:
    """Opens a judge; replies are kept in --cache, or OUT/judge.answers.sqlite. All judges share the budget."""
    budget = budget_of(arguments)
    arguments.cache = arguments.cache or str(Path(arguments.out) / "judge.answers.sqlite")
    return lambda judge: open_endpoint(judge.url, judge.model, arguments, budget)
