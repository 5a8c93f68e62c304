"""Flags of the kinds that ask models: which models, which prompts, how answers are drawn, where the results go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf.cli.decoding_flags import add_decoding_flags, sampling_of

if TYPE_CHECKING:
    from rlhf.evaluate.answers.generation import GenerationRequest


def add_asking_flags(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Prompts, which a kind that has another source of answers does not require, and drawing."""
    command.add_argument(
        "--prompts",
        required=required,
        metavar="FILE",
        help="prompts, or any rows that hold prompts; demo:rankings_dev",
    )
    command.add_argument("--k", type=int, default=1, metavar="K", help="answers a prompt (default: %(default)s)")
    add_decoding_flags(command)
    command.add_argument("--limit", type=int, metavar="N", help="only the first N usable prompts")
    command.add_argument(
        "--on-bad-row", choices=("error", "skip"), default="error", help="at a bad row (default: %(default)s)"
    )


def asking_of(arguments: argparse.Namespace, models: Sequence[str]) -> GenerationRequest:
    """What is asked of whom. Raises ConfigError, naming the flag, for what cannot be."""
    from rlhf.curate.sample.sources import DecodingOptions
    from rlhf.errors import ConfigError
    from rlhf.evaluate.answers.generation import GenerationRequest

    for flag in ("k", "limit"):
        value = getattr(arguments, flag)
        if value is not None and value < 1:
            raise ConfigError(f"is {value}", where=f"--{flag}", expected="at least 1")
    drawing = DecodingOptions(sampling_of(arguments), arguments.k, arguments.seed)
    return GenerationRequest(
        tuple(models), arguments.prompts, drawing, arguments.dtype, arguments.limit, arguments.on_bad_row
    )
