"""Flags of every command that draws answers from models, and what they describe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf.config.flags import add_flags, add_section_flags, fill, fill_section

if TYPE_CHECKING:
    from rlhf.curate.sample.options import SampleOptions

SAMPLING = ("temperature", "top_p", "top_k", "max_new_tokens", "max_prompt_tokens", "batch_size")
ANSWERS = ("prompts", "k", "dtype", "seed", "limit", "on_bad_row")


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """How each answer is drawn."""
    from rlhf.config.sections import SamplingSection

    add_section_flags(parser, SamplingSection, SAMPLING, max_new_tokens=256)


def add_model_flag(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """The models that answer."""
    from rlhf.curate.sample.options import SampleOptions

    add_flags(parser, SampleOptions, only=("models",), **{"models": ..., **defaults})


def add_answer_flags(parser: argparse.ArgumentParser, *, skip: tuple[str, ...] = (), **defaults: Any) -> None:
    """Which prompts are answered, and how; see `add_flags` for `skip` and `defaults`."""
    from rlhf.curate.sample.options import SampleOptions

    add_flags(parser, SampleOptions, only=ANSWERS, skip=skip, **{"k": 1, **defaults})
    add_sampling_flags(parser)


def add_page_flag(parser: argparse.ArgumentParser) -> None:
    """How much of the answers the page holds."""
    shown = "prompts shown on the page (default: %(default)s)"
    parser.add_argument("--show", type=int, default=60, metavar="N", help=shown)


def request_of(arguments: argparse.Namespace, models: Sequence[str]) -> SampleOptions:
    """Which models are asked what, and how. Raises ConfigError, naming the flag, for a value out of range."""
    from rlhf.config.sections import SamplingSection
    from rlhf.curate.sample.options import SampleOptions

    sampling = fill_section(SamplingSection, arguments)
    one: dict[str, Any] = {} if hasattr(arguments, "k") else {"k": 1}
    return fill(SampleOptions, arguments, models=tuple(models), out=arguments.out, sampling=sampling, **one)
