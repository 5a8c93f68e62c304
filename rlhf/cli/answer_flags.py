"""Flags of every command that draws answers from models, and what they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rlhf.config.flags import add_flags, add_section_flags, fill, fill_section

if TYPE_CHECKING:
    from rlhf.curate.sample.options import Asking, Drawing


def add_prompt_flag(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Which prompts are answered."""
    from rlhf.curate.sample.options import Asking

    add_flags(parser, Asking, only=("prompts",), **defaults)


def add_answer_flags(parser: argparse.ArgumentParser, *, num_answers: int | None = 1, rows: bool = True) -> None:
    """How answers are drawn.

    Args:
        num_answers: the default of --k; None for a command that draws one.
        rows: whether bad rows may be skipped.
    """
    from rlhf.config.sections import SamplingSection
    from rlhf.curate.sample.options import SAMPLING_FLAGS, Asking, Drawing

    if num_answers is not None:
        add_flags(parser, Drawing, only=("num_answers",), num_answers=num_answers)
    add_section_flags(parser, SamplingSection, SAMPLING_FLAGS, max_new_tokens=256)
    add_flags(parser, Drawing, only=("seed",))
    add_flags(parser, Asking, only=("dtype", "limit", *(("on_bad_row",) if rows else ())))


def add_page_flag(parser: argparse.ArgumentParser) -> None:
    """How much of the answers the page holds."""
    shown = "prompts shown on the page (default: %(default)s)"
    parser.add_argument("--show", type=int, default=60, metavar="N", help=shown)


def drawing_of(arguments: argparse.Namespace) -> Drawing:
    """How answers are drawn. Raises ConfigError, naming the flag, for a value that is out of range."""
    from rlhf.config.sections import SamplingSection
    from rlhf.curate.sample.options import Drawing

    values: dict[str, Any] = {} if hasattr(arguments, "k") else {"num_answers": 1}
    return fill(Drawing, arguments, sampling=fill_section(SamplingSection, arguments), **values)


def asking_of(arguments: argparse.Namespace, **values: Any) -> Asking:
    """Which models are asked what. Raises as `drawing_of`."""
    from rlhf.curate.sample.options import Asking

    return fill(Asking, arguments, drawing=drawing_of(arguments), **values)
