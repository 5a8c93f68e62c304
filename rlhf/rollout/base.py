"""What rollout backends return, and the random streams they draw from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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


def uniform_draws(stream: tuple[int, ...], count: int) -> npt.NDArray[np.float64]:
    """The first `count` uniform numbers of a named stream."""
    return np.random.default_rng(stream).random(count)
