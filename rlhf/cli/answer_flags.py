"""Flags of every command that draws answers from models, and what they describe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf.config.flags import add_flags, add_section_flags, fill, fill_section

if TYPE_CHECKING:
    from rlhf.config.rollout import RolloutSection
    from rlhf.curate.sample.options import SampleOptions

SAMPLING = ("temperature", "top_p", "top_k", "max_new_tokens", "max_prompt_tokens", "batch_size")
ENGINE = ("python", "gpu_memory", "cpu_cache_gib", "eager", "timeout_s", "start_timeout_s")
ENGINE_SHARE = 0.85  # of a GPU that nothing else uses while the engine answers
ANSWERS = ("prompts", "k", "dtype", "seed", "limit", "on_bad_row")


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """How each answer is drawn, and by what."""
    from rlhf.config.sections import SamplingSection

    add_section_flags(parser, SamplingSection, SAMPLING, max_new_tokens=256)
    add_engine_flags(parser)


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """What draws the answers."""
    from rlhf.config.rollout import RolloutSection, VllmSection

    engine = parser.add_argument_group("engine", "what draws the answers; see docs/rollout.md")
    add_section_flags(engine, RolloutSection, ("backend",))
    add_section_flags(engine, VllmSection, ENGINE, prefix="vllm", gpu_memory=ENGINE_SHARE)


def rollout_of(arguments: argparse.Namespace) -> RolloutSection:
    """What draws the answers. Raises ConfigError, naming the flag, for a value out of range."""
    from rlhf.config.rollout import RolloutSection, VllmSection

    vllm = fill_section(VllmSection, arguments, prefix="vllm")
    return RolloutSection(backend=arguments.backend, vllm=vllm)


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
    rollout = rollout_of(arguments)
    given = {"models": tuple(models), "out": arguments.out, "sampling": sampling, "rollout": rollout}
    return fill(SampleOptions, arguments, **given, **one)
