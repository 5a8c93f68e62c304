"""Least-squares line through points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class LineFit(NamedTuple):
    """slope: units of y per unit of x; correlation: the slope of the same line in standard units, -1 to 1."""

    slope: float
    correlation: float


def line_fit(x: Sequence[float], y: Sequence[float]) -> LineFit:
    """Least squares of y on x, in float64; both numbers are 0 where x or y does not vary.

    Raises:  ValueError if x and y are not of one length.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values of x and {len(y)} of y, expected as many")
    across, up = torch.tensor([list(x), list(y)], dtype=torch.float64)
    if across.min() == across.max() or up.min() == up.max():  # before centring, whose rounding would leave a spread
        return LineFit(0.0, 0.0)
    across, up = across - across.mean(), up - up.mean()
    spread, height, shared = across.square().sum(), up.square().sum(), (across * up).sum()
    return LineFit(float(shared / spread), float(shared / (spread * height).sqrt()))
