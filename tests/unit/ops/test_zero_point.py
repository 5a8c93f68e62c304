"""Zero and unit of scores by hand."""

import pytest
import torch

from rlhf.ops.zero_point import zero_point


@pytest.mark.parametrize(
    ("normalise", "scale", "offset"),
    [
        ("none", 1.0, 0.0),
        ("mean", 1.0, -4.0),
        ("mean_and_deviation", 0.5, -2.0),  # (2, 6): mean 4, deviation 2; 2 -> -1, 6 -> 1
    ],
)
def test_the_zero_point_by_hand(normalise, scale, offset):
    zero = zero_point(torch.tensor([2.0, 6.0]), normalise)
    assert (zero.scale, zero.offset, zero.mean, zero.deviation) == (scale, offset, 4.0, 2.0)
    assert (zero.shifted(2.0), zero.shifted(6.0)) == (2 * scale + offset, 6 * scale + offset)


def test_the_deviation_is_that_of_a_population():
    """0, 0 and 3: mean 1, squares 1 + 1 + 4, over 3 and not 2."""
    assert zero_point(torch.tensor([0.0, 0.0, 3.0]), "none").deviation == pytest.approx(2**0.5)


def test_what_has_no_zero_point_is_refused():
    with pytest.raises(ValueError, match=r"2 score\(s\) have deviation 0.0"):
        zero_point(torch.tensor([3.0, 3.0]), "mean_and_deviation")
    assert zero_point(torch.tensor([3.0, 3.0]), "mean").offset == -3.0
    for scores in (torch.zeros(0), torch.zeros(1, 2)):
        with pytest.raises(ValueError, match=r"expected \[N\] with N >= 1"):
            zero_point(scores, "mean")
