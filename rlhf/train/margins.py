"""A judge's scores as margins of stage 2, and the zero point of its reward model: data in, `rlhf.ops` computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rlhf.data.encode import EncodedRanking
from rlhf.errors import ConfigError, DataError
from rlhf.ops.losses import score_margins
from rlhf.ops.zero_point import ZeroPoint, zero_point


def rows_without_scores(rankings: Sequence[EncodedRanking]) -> int:
    """How many rankings have no scores, and so a margin of 0.

    Raises: ConfigError when all of them have none.
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


def margins_of(rankings: Sequence[EncodedRanking], width: int, scale: float) -> Tensor:
    """Margins [B, K, K] float32 in reward units, 0 in rows without scores and where scores contradict the ranks.

    `width` is K, the largest number of answers; B is at least 1, for an idle row.
    """
    scores = torch.zeros(max(1, len(rankings)), width)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for row, item in enumerate(rankings):
        if item.scores is not None:
            scores[row, : len(item.scores)] = torch.tensor(item.scores, dtype=torch.float32)
            mask[row, : len(item.scores)] = True
    return score_margins(scores, mask, scale=scale)


def demonstration_zero(scores: Sequence[float], normalise: Literal["mean", "mean_and_deviation", "none"]) -> ZeroPoint:
    """The zero point of demonstrations that were scored `scores`.

    Raises: DataError when a deviation is asked for and all scores are equal.
    """
    try:
        return zero_point(torch.tensor(scores, dtype=torch.float64), normalise)
    except ValueError as error:
        raise DataError(
            f"the demonstrations cannot set the unit of scores: {error}",
            where="train.normalise = mean_and_deviation",
            expected="demonstrations with different scores",
            fix="set train.normalise=mean, or name more data.demonstrations",
        ) from error
