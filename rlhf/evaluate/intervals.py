"""Figures with 95 % intervals: bootstrap over prompts, jackknife where that is biased, Wilson for counted shares.

Prompts are the units throughout, because answers to one prompt are not independent. The random stream has a fixed seed,
so that a figure is the same each time it is computed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap, norm

Floats = npt.NDArray[np.float64]
Draws = npt.NDArray[np.int64]  # row numbers of prompts, [..., P]
Bounds = tuple[float, float]
BOOTSTRAP_DRAWS = 2000
DRAWN_AT_ONCE = 2_000_000  # row numbers held in memory at a time
SAME = 1e-12  # rounding aside
SHARE: Bounds = (0.0, 1.0)
SHARE_DIFFERENCE: Bounds = (-1.0, 1.0)


class Figure(TypedDict):
    """A value with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    statistic: Callable[[Draws], Any], number: int, draws: int = BOOTSTRAP_DRAWS
) -> tuple[float, float]:
    """Percentile interval of a statistic over `number` prompts, drawn with replacement.

    NaN for fewer than two prompts, and where no draw has a value.

    Args:
        statistic: from row numbers [..., number] to values [...]; several models read by the same rows are paired.
    """
    if number < 2:
        return math.nan, math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # a draw without any count has no ratio
        found = bootstrap(
            (np.arange(number),),
            lambda drawn, axis: statistic(drawn),
            n_resamples=draws,
            batch=max(1, DRAWN_AT_ONCE // number),
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    values = found.bootstrap_distribution[~np.isnan(found.bootstrap_distribution)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def ratio_figure(sums: Floats, counts: Floats, bounds: Bounds | None = None) -> Figure:
    """sum(sums) / sum(counts) by bootstrap over prompts; entry i of both [P] is prompt i. NaN without any count.

    Args:
        bounds: smallest and largest value a prompt can have, where there are such; see `widened`.
    """

    def ratio(drawn: Draws) -> Floats:
        return _ratio(sums[drawn], counts[drawn])

    low, high = bootstrap_interval(ratio, len(sums))
    figure: Figure = {"mean": float(_ratio(sums, counts)), "low": low, "high": high}
    return widened(figure, int((counts > 0).sum()), bounds)


def ratio_difference(
    sums: tuple[Floats, Floats], counts: tuple[Floats, Floats], bounds: Bounds | None = None
) -> Figure:
    """Second ratio minus first, the same prompts drawn for both; `bounds` are those of the difference."""

    def difference(drawn: Draws) -> Floats:
        first, second = (_ratio(total[drawn], count[drawn]) for total, count in zip(sums, counts, strict=True))
        return second - first

    number = len(sums[0])
    low, high = bootstrap_interval(difference, number)
    figure: Figure = {"mean": float(difference(np.arange(number))), "low": low, "high": high}
    return widened(figure, int(((counts[0] > 0) & (counts[1] > 0)).sum()), bounds)


def mean_figure(values: Sequence[float] | Floats, bounds: Bounds | None = None) -> Figure:
    """Mean over prompts with its bootstrap interval."""
    found = np.asarray(values, dtype=float)
    return ratio_figure(found, np.ones(len(found)), bounds)


def jackknife_figure(value: float, without: Floats, bounds: Bounds | None = None) -> Figure:
    """A statistic with its jackknife interval; `without[i]` is the statistic when prompt i is left out.

    For measures of variety: drawing a prompt twice, as the bootstrap does, makes any text look repetitive.
    Source: Efron & Stein (1981).
    """
    count = len(without)
    if count < 2:
        return widened({"mean": value, "low": math.nan, "high": math.nan}, count, bounds)
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    half = float(norm.ppf(0.975)) * error
    lowest, highest = bounds or (-math.inf, math.inf)
    return widened({"mean": value, "low": max(lowest, value - half), "high": min(highest, value + half)}, count, bounds)


def wilson(successes: int, total: int) -> Figure:
    """A share with Wilson's interval, which stays sensible at 0 and 1 and for few cases. NaN for none.

    Source: Wilson (1927).
    """
    if not total:
        return {"mean": math.nan, "low": 0.0, "high": 1.0}
    interval = binomtest(successes, total).proportion_ci(method="wilson")
    return {"mean": successes / total, "low": float(interval.low), "high": float(interval.high)}


def widened(figure: Figure, num_prompts: int, bounds: Bounds | None) -> Figure:
    """The figure, unless all prompts agree: resampling then gives no width, however few they are, or one none at all.

    Where 0 of n prompts differ from the value, Wilson's interval says that a share of up to u may, each by as much as
    `bounds` allow. At the ends of a share's scale this is Wilson's interval of 0 or n successes in n.
    """
    if bounds is None or not num_prompts or figure["high"] - figure["low"] > SAME:
        return figure
    value, differing = figure["mean"], wilson(0, num_prompts)["high"]
    low, high = value - differing * (value - bounds[0]), value + differing * (bounds[1] - value)
    return {"mean": value, "low": low, "high": high}


def excludes_zero(figure: Figure) -> bool:
    """Whether 0 lies outside a difference's interval."""
    return figure["low"] > 0 or figure["high"] < 0


def _ratio(sums: Floats, counts: Floats) -> Floats:
    total = np.asarray(counts.sum(-1), dtype=float)
    return np.divide(sums.sum(-1), total, out=np.full(total.shape, np.nan), where=total > 0)
