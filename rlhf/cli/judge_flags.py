"""Flags of every command that asks a judge, and how it is asked by them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhf.curate.judge.pairwise import JudgeSettings


def add_judge_flags(command: argparse.ArgumentParser, prefix: str = "") -> None:
    """By what a judge scores and how it is asked; `prefix` keeps names apart from those of other models' flags."""
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
        f"--{prefix}samples",
        dest="judge_samples",
        type=int,
        default=5,
        metavar="N",
        help="replies to average without probabilities (default: %(default)s)",
    )
    command.add_argument(
        f"--{prefix}temperature",
        dest="judge_temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="of those replies (default: %(default)s)",
    )
    command.add_argument(
        f"--{prefix}max-tokens",
        dest="judge_max_tokens",
        type=int,
        default=2048,
        metavar="N",
        help="longest reply (default: %(default)s)",
    )
    command.add_argument(
        "--form-retries",
        type=int,
        default=2,
        metavar="N",
        help="ask again for unreadable scores (default: %(default)s)",
    )


def judge_settings_of(arguments: argparse.Namespace, prefix: str = "") -> JudgeSettings:
    """How judges are asked. Raises ConfigError, naming the flag, for a number that cannot be."""
    from rlhf.curate.judge.pairwise import JudgeSettings
    from rlhf.errors import ConfigError

    given = (
        (f"--{prefix}samples", arguments.judge_samples, 1),
        (f"--{prefix}max-tokens", arguments.judge_max_tokens, 1),
        ("--form-retries", arguments.form_retries, 0),
    )
    for flag, value, least in given:
        if value < least:
            raise ConfigError(f"is {value}", where=flag, expected=f"at least {least}")
    return JudgeSettings(
        weighting="samples" if arguments.weighting == "auto" else arguments.weighting,
        samples=arguments.judge_samples,
        temperature=arguments.judge_temperature,
        max_tokens=arguments.judge_max_tokens,
        form_retries=arguments.form_retries,
    )
