"""Mean and deviation of all numbers seen so far, batch by batch."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Moments(NamedTuple):
    """How many numbers were seen, their mean, and the sum of their squared deviations from it."""

    num_values: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of what was seen, as of a whole population; 0 where nothing was."""
        return math.sqrt(self.squares / self.num_values) if self.num_values else 0.0


def updated(moments: Moments, values: Tensor) -> Moments:
    """Moments after a further batch, in float64; the same as of all numbers at once.

    Shapes:  values [N], N may be 0.
    Raises:  ValueError if values are not [N] or not all finite.
    Source:  Chan, Golub and LeVeque (1979), eq. 2.1, the batch form of Welford's update.
    """
    if values.ndim != 1 or not values.isfinite().all():
        raise ValueError(f"values of shape {list(values.shape)}, expected finite numbers [N]")
    if len(values) == 0:
        return moments
    batch = values.double()
    count, mean = len(batch), float(batch.mean())
    total, gap = moments.num_values + count, mean - moments.mean
    squares = moments.squares + float((batch - mean).square().sum()) + gap * gap * moments.num_values * count / total
    return Moments(total, moments.mean + gap * count / total, squares)


def standardised(values: Tensor, moments: Moments, *, epsilon: float = 1e-8) -> Tensor:
    """(values - mean) / (deviation + epsilon).

    Shapes:  values [N] -> [N] standard deviations, in the dtype of `values`.
    Raises:  ValueError if epsilon is not positive.
    """
    return ((values.double() - moments.mean) / _scale(moments, epsilon)).to(values.dtype)


def rescaled(values: Tensor, moments: Moments, *, epsilon: float = 1e-8) -> Tensor:
    """values / (deviation + epsilon): the parts of a sum whose `standardised` rest has the mean subtracted.

    Shapes:  values [...] -> [...] standard deviations, in the dtype of `values`.
    Raises:  ValueError if epsilon is not positive.
    """
    return (values.double() / _scale(moments, epsilon)).to(values.dtype)


def _scale(moments: Moments, epsilon: float) -> float:
    if not epsilon > 0:
        raise ValueError(f"epsilon = {epsilon}, expected > 0: equal values have deviation 0")
    return moments.deviation + epsilon
