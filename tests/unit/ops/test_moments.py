"""Moments of numbers that come in batches."""

import pytest
import torch

from rlhf.ops.moments import Moments, standardised, updated


def test_two_batches_by_hand():
    """1, 3, then 5, 7, 9: mean 5, squared deviations 16 + 4 + 0 + 4 + 16 = 40."""
    first = updated(Moments(), torch.tensor([1.0, 3.0]))
    assert first == (2, 2.0, 2.0)
    both = updated(first, torch.tensor([5.0, 7.0, 9.0]))
    assert both == pytest.approx((5, 5.0, 40.0))
    assert both.deviation == pytest.approx(8**0.5)


def test_batches_of_any_size_give_what_all_at_once_would():
    values = torch.randn(50, generator=torch.Generator().manual_seed(3)) * 3 + 1000
    moments = Moments()
    for part in values.split([1, 0, 7, 30, 12]):
        moments = updated(moments, part)
    wide = values.double()
    expected = (50, float(wide.mean()), float(wide.var(unbiased=False) * 50))
    assert moments == pytest.approx(expected, rel=1e-9)


def test_values_are_put_on_the_scale_of_what_was_seen():
    """Mean 5, deviation sqrt(8): 9 is (9 - 5) / sqrt(8)."""
    found = standardised(torch.tensor([9.0, 5.0]), Moments(5, 5.0, 40.0))
    assert found.tolist() == pytest.approx([4 / 8**0.5, 0.0])
    assert found.dtype == torch.float32


def test_equal_values_are_zero():
    moments = updated(Moments(), torch.tensor([2.0, 2.0]))
    assert moments.deviation == 0
    assert standardised(torch.tensor([2.0, 2.0]), moments).tolist() == [0, 0]
    assert Moments().deviation == 0


def test_what_is_no_batch_of_numbers_is_refused():
    with pytest.raises(ValueError, match="finite"):
        updated(Moments(), torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match=r"\[N\]"):
        updated(Moments(), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="epsilon"):
        standardised(torch.zeros(1), Moments(), epsilon=0.0)
