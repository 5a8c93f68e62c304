"""Rewards of an answer at places of its text, as functions and endpoints may give them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rlhf.data.answer_offsets import tokens_at
from rlhf.data.encode import Ids
from rlhf.data.tokenizer import ChatTokenizer

EXPECTED = (
    "for each answer a finite number, or [[offset, reward], ...]: offsets in characters of the answer, ascending, "
    "1 to its length; rewards finite"
)


@dataclass(frozen=True, slots=True)
class PlacedReward:
    """What one answer earns, reward units: `end` at its last token, and `steps` (offset, reward) before its end.

    A step's offset is the number of characters before its end, at least 1 and below the length of the answer.
    """

    end: float
    steps: tuple[tuple[int, float], ...] = ()

    @property
    def total(self) -> float:
        return self.end + sum(reward for _, reward in self.steps)


def placed_reward(given: object, answer: str) -> PlacedReward:
    """A source's reward of one answer: a number, which is a reward at the end, or (offset, reward) pairs.

    An offset that equals the length of the answer is its end, so that one such pair is the same as the number alone.

    Raises: ValueError that says what is wrong with a pair; TypeError or ValueError for what is neither.
    """
    if not isinstance(given, Iterable) or isinstance(given, str) or getattr(given, "ndim", 2) < 2:  # arrays too
        return PlacedReward(_finite(float(given)))  # type: ignore[arg-type]
    steps: list[tuple[int, float]] = []
    end, before = 0.0, 0
    for pair in given:
        offset, reward = _pair(pair, answer)
        if steps and offset <= before:
            raise ValueError(f"offset {offset} after offset {before}")
        before = offset
        steps.append((offset, reward))
    if steps and before == len(answer):
        end = steps.pop()[1]
    return PlacedReward(end, tuple(steps))


def _pair(pair: object, answer: str) -> tuple[int, float]:
    if not isinstance(pair, Iterable) or isinstance(pair, str) or len(parts := list(pair)) != 2:
        raise ValueError(f"{pair!r} in place of [offset, reward]")
    offset = int(parts[0])
    if isinstance(parts[0], bool | str) or offset != parts[0]:
        raise ValueError(f"offset {parts[0]!r}, which is no whole number")
    if not min(1, len(answer)) <= offset <= len(answer):
        raise ValueError(f"offset {offset} in an answer of {len(answer)} characters")
    return offset, _finite(float(parts[1]))


def _finite(reward: float) -> float:
    if not math.isfinite(reward):
        raise ValueError("a reward that is not finite")
    return reward


def on_tokens(reward: PlacedReward, response: Ids, tokenizer: ChatTokenizer) -> tuple[float, dict[int, float]]:
    """The reward at the last token of a response, and those at earlier tokens by index.

    Rewards whose token is the same are added up; see `tokens_at` for where an offset lands.
    """
    if not reward.steps:
        return reward.end, {}
    offsets = [offset for offset, _ in reward.steps]
    earlier: dict[int, float] = {}
    for token, (_, value) in zip(tokens_at(response.tolist(), offsets, tokenizer.text), reward.steps, strict=True):
        earlier[token] = earlier.get(token, 0.0) + value
    return reward.end + earlier.pop(len(response) - 1, 0.0), earlier
