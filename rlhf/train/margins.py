"""What stage 2 makes of numbers beside ranks: a judge's scores as margins, and the zero and unit of its own scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rlhf.data.encode import EncodedRanking
from rlhf.errors import ConfigError, DataError


def rows_without_scores(rankings: Sequence[EncodedRanking]) -> int:
    """How many rankings get a margin of 0 for want of scores.

    Raises: ConfigError when all of them do.
    """
    count = sum(item.scores is None for item in rankings)
    if count == len(rankings):
        raise ConfigError(
            f"none of {count} training rankings has scores to take margins from",
            where="train.margin = scores",
            expected='rows with "scores" beside their ranks (docs/formats.md)',
            fix="set train.margin=none, or give data.train with scores",
        )
    return count


def score_margins(rankings: Sequence[EncodedRanking], width: int, scale: float) -> Tensor:
    """Margins [B, K, K] float32 in reward units: entry [b, i, j] is `scale` times how far score i lies above score j.

    Where the scores contradict the ranks, and in rows without scores, a margin is 0. `width` is K, the largest number
    of answers; B is at least 1, for an idle row.
    """
    margins = torch.zeros(max(1, len(rankings)), width, width)
    for number, item in enumerate(rankings):
        if item.scores is not None:
            scores = torch.tensor(item.scores, dtype=torch.float32)
            gaps = (scores[:, None] - scores[None, :]).clamp(min=0)
            margins[number, : len(scores), : len(scores)] = scale * gaps
    return margins


@dataclass(frozen=True, slots=True)
class ZeroPoint:
    """Where exported scores have their zero and unit: exported = scale * score + offset."""

    scale: float
    offset: float
    mean: float
    deviation: float


def zero_point(scores: Sequence[float], normalise: Literal["mean", "mean_and_deviation", "none"]) -> ZeroPoint:
    """The zero point that gives demonstrations, scored `scores` in reward units, mean 0 and, if asked, deviation 1.

    Raises: DataError when a deviation is asked for and all scores are equal.
    """
    mean, deviation = float(np.mean(scores)), float(np.std(scores))
    if normalise == "none":
        return ZeroPoint(1.0, 0.0, mean, deviation)
    if normalise == "mean":
        return ZeroPoint(1.0, -mean, mean, deviation)
    if not deviation > 0:
        raise DataError(
            f"the deviation of the scores of {len(scores)} demonstration(s) is {deviation}",
            where="train.normalise = mean_and_deviation",
            expected="demonstrations with different scores",
            fix="set train.normalise=mean, or name more data.demonstrations",
        )
    return ZeroPoint(1 / deviation, -mean / deviation, mean, deviation)
