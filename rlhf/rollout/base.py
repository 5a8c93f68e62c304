"""What all rollout backends do, what they return, and the random streams they draw from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rlhf.config.sections import SamplingSection
from rlhf.data.encode import Ids

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Answers in the order of their prompts.

    tokens: ids of each answer, with EOS if it has one; logprobs: one per token, in nats, of the distribution it was
    sampled from; finished: whether EOS was sampled before the limit.
    """

    tokens: list[Ids]
    logprobs: list[Floats]
    finished: list[bool]


class Rollout(Protocol):
    """Draws answers with one model's weights, in this process or in an engine's."""

    def generate(
        self, prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], sampling: SamplingSection
    ) -> Rollouts:
        """One answer per prompt. `streams` names the random stream of each answer, so that it depends on neither rank,
        batch nor order; the answers of two backends in one stream differ."""
        ...


def uniform_draws(stream: tuple[int, ...], count: int) -> npt.NDArray[np.float64]:
    """The first `count` uniform numbers of a named stream."""
    return np.random.default_rng(stream).random(count)
