"""A figure with its interval as text, and where the parts of a small drawing of it stand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

WIDTH, MARGIN = 120, 4  # units of the drawing's view box; the margin is the radius of the dot
ACROSS, BELOW, ABOVE = "#5a6473", "#b3541e", "#23735a"


class PlacedInterval(NamedTuple):
    """Horizontal places in the drawing. `reference` is None without a value to compare with.

    colour: green where the whole interval is above the reference, red where it is below, else grey.
    """

    low: float
    mean: float
    high: float
    reference: float | None
    colour: str


def figure_text(figure: Mapping[str, Any], spec: str = ".3f", value: str = "mean") -> str:
    """A figure as text, `0.750 [0.600, 0.900]`, or its value alone without an interval; `value` is the value's key."""
    ends = "" if math.isnan(figure["low"]) else f" [{figure['low']:{spec}}, {figure['high']:{spec}}]"
    return f"{figure[value]:{spec}}{ends}"


def reach(figures: Iterable[Mapping[str, Any]]) -> float:
    """How far from 0 the figures and their intervals reach."""
    ends = (abs(each[end]) for each in figures for end in ("mean", "low", "high"))
    return max((end for end in ends if not math.isnan(end)), default=0.0) or 1e-9


def place_interval(
    figure: Mapping[str, float], low: float, high: float, reference: float | None = None
) -> PlacedInterval | None:
    """A figure on an axis from `low` to `high`; None where it has no mean. What lies outside stands at the edge."""
    mean = figure["mean"]
    if math.isnan(mean):
        return None

    def place(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return MARGIN + (WIDTH - 2 * MARGIN) * min(1.0, max(0.0, share))

    ends = [mean if math.isnan(end) else end for end in (figure["low"], figure["high"])]
    colour = ACROSS
    if reference is not None:
        colour = BELOW if figure["high"] < reference else ABOVE if figure["low"] > reference else ACROSS
    return PlacedInterval(
        place(ends[0]), place(mean), place(ends[1]), None if reference is None else place(reference), colour
    )
