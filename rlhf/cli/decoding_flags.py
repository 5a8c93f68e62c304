"""Flags of every command that draws answers from a model, and the settings they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhf.config.sections import SamplingSection


def add_decoding_flags(command: argparse.ArgumentParser) -> None:
    """How answers are drawn; the number of answers a prompt is the command's own flag."""
    command.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default: %(default)s)")
    command.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="keep the likeliest tokens of this mass (default: all)"
    )
    command.add_argument(
        "--top-k",
        type=int,
        default=0,
        metavar="N",
        help="keep the N likeliest tokens; not for endpoints (default: all)",
    )
    command.add_argument(
        "--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (default: %(default)s)"
    )
    command.add_argument(
        "--max-prompt-tokens",
        type=int,
        default=512,
        metavar="N",
        help="longer prompts lose old turns, then their left (default: %(default)s)",
    )
    command.add_argument(
        "--batch-size",
        type=int,
        default=64,
        metavar="N",
        help="answers decoded together on a device (default: %(default)s)",
    )
    command.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of the weights; auto is bfloat16 on a GPU and float32 elsewhere (default: %(default)s)",
    )
    command.add_argument("--seed", type=int, default=17, help="of every draw of a model (default: %(default)s)")


def sampling_of(arguments: argparse.Namespace) -> SamplingSection:
    """The settings that were given. Raises ConfigError, naming the flag, for one that cannot be."""
    from pydantic import ValidationError

    from rlhf.config.sections import SamplingSection
    from rlhf.errors import ConfigError

    names = ("temperature", "top_p", "top_k", "max_new_tokens", "max_prompt_tokens", "batch_size")
    try:
        return SamplingSection(**{name: getattr(arguments, name) for name in names})
    except ValidationError as error:
        problems = [
            ConfigError(f"is {each['input']}", where=f"--{str(each['loc'][0]).replace('_', '-')}", expected=each["msg"])
            for each in error.errors()
        ]
        raise ConfigError.collect(problems) from None
