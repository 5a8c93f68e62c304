"""Figures with 95 % intervals: the bootstrap over prompts, the jackknife where that is biased, Wilson's for shares.

Prompts are the units throughout, because answers to one prompt are not independent. Draws come from a fixed seed, so
that a figure is the same each time it is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from rlhf.evaluate.reward.accuracy import BOOTSTRAP_DRAWS, DRAWN_AT_ONCE

Floats = npt.NDArray[np.float64]
Z_95 = 1.959964


class Figure(TypedDict):
    """A value with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def resamples(number: int, draws: int = BOOTSTRAP_DRAWS) -> list[npt.NDArray[np.int64]]:
    """Blocks of row numbers [draws in the block, number], drawn with replacement; few enough to fit into memory."""
    generator, step = np.random.default_rng(0), max(1, DRAWN_AT_ONCE // max(1, number))
    return [generator.integers(0, number, (min(step, draws - start), number)) for start in range(0, draws, step)]


def ratio_figure(sums: Floats, counts: Floats) -> Figure:
    """sum(sums) / sum(counts) by bootstrap over prompts; entry i of both [P] is prompt i. NaN without any count."""
    return _figure(_ratio(sums, counts), [_ratio(sums[drawn], counts[drawn]) for drawn in resamples(len(sums))])


def ratio_difference(sums: tuple[Floats, Floats], counts: tuple[Floats, Floats]) -> Figure:
    """Second ratio minus first, the same prompts drawn for both."""

    def difference(drawn: npt.NDArray[np.int64] | slice) -> Floats:
        first, second = (_ratio(total[drawn], count[drawn]) for total, count in zip(sums, counts, strict=True))
        return second - first

    return _figure(difference(slice(None)), [difference(drawn) for drawn in resamples(len(sums[0]))])


def mean_figure(values: Sequence[float] | Floats) -> Figure:
    """Mean over prompts with its bootstrap interval."""
    found = np.asarray(values, dtype=float)
    return ratio_figure(found, np.ones(len(found)))


def jackknife_figure(value: float, without: Floats) -> Figure:
    """A statistic with its jackknife interval; `without[i]` is the statistic when prompt i is left out.

    For measures of variety: drawing a prompt twice, as the bootstrap does, makes any text look repetitive.
    Source: Efron & Stein (1981).
    """
    count = len(without)
    if count < 2:
        return {"mean": value, "low": float("nan"), "high": float("nan")}
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    return {"mean": value, "low": value - Z_95 * error, "high": value + Z_95 * error}


def wilson(successes: int, total: int) -> Figure:
    """A share with Wilson's interval, which stays sensible at 0 and 1 and for few cases. NaN for none.

    Source: Wilson (1927).
    """
    if not total:
        return {"mean": float("nan"), "low": 0.0, "high": 1.0}
    share, square = successes / total, Z_95**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = Z_95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return {"mean": share, "low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def excludes_zero(figure: Figure) -> bool:
    """Whether a difference is told from 0."""
    return figure["low"] > 0 or figure["high"] < 0


def _ratio(sums: Floats, counts: Floats) -> Floats:
    total = np.asarray(counts.sum(-1), dtype=float)
    return np.divide(sums.sum(-1), total, out=np.full(total.shape, np.nan), where=total > 0)


def _figure(value: Floats, draws: Sequence[Floats]) -> Figure:
    found = np.concatenate(draws)
    found = found[~np.isnan(found)]
    low, high = np.percentile(found, [2.5, 97.5]) if len(found) else (np.nan, np.nan)
    return {"mean": float(value), "low": float(low), "high": float(high)}
