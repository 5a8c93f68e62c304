"""What a rollout backend takes and gives."""

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

    tokens: ids of each answer, its EOS included when it has one; logprobs: nats, one a token, of the distribution
    that sampled it; finished: whether EOS was drawn before the limit.
    """

    tokens: list[Ids]
    logprobs: list[Floats]
    finished: list[bool]


class RolloutBackend(Protocol):
    """Draws one answer a prompt. `streams` names each answer's random stream, so that it depends on neither rank,
    batch nor order."""

    def generate(
        self, prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], sampling: SamplingSection
    ) -> Rollouts: ...


def uniform_draws(stream: tuple[int, ...], count: int) -> npt.NDArray[np.float64]:
    """The first `count` uniform numbers of a named stream."""
    return np.random.default_rng(stream).random(count)
