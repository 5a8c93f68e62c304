"""Least-squares lines by hand."""

from __future__ import annotations

import pytest

from rlhf.ops.line_fit import line_fit


def test_a_line_by_hand() -> None:
    """x 1 2 3, y 2 2 5: slope 3 / 2; correlation 3 / sqrt(2 * 6)."""
    fit = line_fit([1, 2, 3], [2, 2, 5])
    assert fit.slope == pytest.approx(1.5)
    assert fit.correlation == pytest.approx(3 / 12**0.5)
    assert line_fit([1, 2, 3], [5, 2, 2]).slope == pytest.approx(-1.5)


@pytest.mark.parametrize(
    ("x", "y"), [([3, 3, 3], [1, 2, 3]), ([1, 2, 3], [0.1, 0.1, 0.1]), ([1, 2, 4], [2.0, 2.0, 2.0]), ([2], [1.0])]
)
def test_what_does_not_vary_has_no_slope(x: list[float], y: list[float]) -> None:
    assert line_fit(x, y) == (0.0, 0.0)


def test_both_sides_have_as_many_values() -> None:
    with pytest.raises(ValueError, match="2 values of x and 1 of y"):
        line_fit([1, 2], [3.0])
