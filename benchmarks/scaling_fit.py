"""y = scale * x ** exponent, by least squares on logarithms, with the exponent's 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class PowerFit:
    """low and high: the interval of the exponent by Student's t; None where two points leave no spread to judge by.

    worst: the largest |measured / fitted - 1|.
    """

    exponent: float
    scale: float
    low: float | None
    high: float | None
    worst: float

    def at(self, x: float) -> float:
        return float(self.scale * x**self.exponent)


def power_fit(x: Sequence[float], y: Sequence[float]) -> PowerFit:
    """The fit of y on x, both above 0.

    Raises: ValueError for fewer than two different x, or for numbers that have no logarithm.
    """
    if len(x) != len(y) or len(set(x)) < 2:
        raise ValueError(f"{len(x)} values of x ({len(set(x))} different) and {len(y)} of y")
    if min(*x, *y) <= 0:
        raise ValueError("a value of 0 or below has no logarithm")
    across, up = [math.log(each) for each in x], [math.log(each) for each in y]
    mean_across, mean_up = sum(across) / len(x), sum(up) / len(y)
    spread = sum((each - mean_across) ** 2 for each in across)
    shared = sum((a - mean_across) * (b - mean_up) for a, b in zip(across, up, strict=True))
    exponent = shared / spread
    level = mean_up - exponent * mean_across
    rest = [b - level - exponent * a for a, b in zip(across, up, strict=True)]
    half = _half_width(rest, spread)
    bounds = (None, None) if half is None else (exponent - half, exponent + half)
    return PowerFit(exponent, math.exp(level), *bounds, max(abs(math.expm1(each)) for each in rest))


def _half_width(rest: Sequence[float], spread: float) -> float | None:
    free = len(rest) - 2
    if free < 1:
        return None
    from scipy.stats import t

    error = math.sqrt(sum(each**2 for each in rest) / free / spread)
    return float(t.ppf((1 + LEVEL) / 2, free)) * error
