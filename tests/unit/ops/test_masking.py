"""Masked sums, moments and whitening."""

import pytest
import torch
from torch import Tensor

from rlhf.ops.masking import (
    check_mask,
    check_scalar,
    masked_mean,
    masked_sum,
    squared_deviation_sum,
    whiten,
    widen,
)

NAN = float("nan")


def _values() -> tuple[Tensor, Tensor]:
    values = torch.tensor([[1.0, 2.0, NAN], [5.0, NAN, NAN]], requires_grad=True)
    return values, torch.tensor([[True, True, False], [True, False, False]])


def test_masked_sum_by_hand():
    values, mask = _values()
    assert masked_sum(values, mask).item() == 8.0  # 1 + 2 + 5
    assert masked_sum(values, mask, 1).tolist() == [3.0, 5.0]
    assert masked_sum(values, mask, 0).tolist() == [6.0, 2.0, 0.0]


def test_masked_sum_gradient_is_the_mask():
    values, mask = _values()
    masked_sum(values, mask).backward()
    assert torch.equal(values.grad, mask.float())


def test_masked_sum_of_an_empty_mask_is_zero():
    assert masked_sum(torch.tensor([NAN, NAN]), torch.tensor([False, False])).item() == 0.0


def test_half_precision_is_summed_in_float32():
    mask = torch.arange(302) < 301
    total = masked_sum(torch.ones(302, dtype=torch.bfloat16), mask)
    assert total.dtype == torch.float32
    assert total.item() == 301.0  # bfloat16, with 8 significant bits, would give 300 or 302


def test_widen_leaves_wide_types_alone():
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
    widened = [widen(torch.ones(1, dtype=kind)).dtype for kind in kinds]
    assert widened == [torch.float32, torch.float32, torch.float32, torch.float64, torch.int64]


def test_masked_mean_by_hand():
    values, mask = _values()
    assert masked_mean(values, mask).item() == pytest.approx(8 / 3, rel=1e-6)  # (1 + 2 + 5) / 3, not / 6


def test_masked_mean_of_nothing_raises():
    with pytest.raises(ValueError, match="counts no entry"):
        masked_mean(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool))


def test_squared_deviation_sum_by_hand():
    values, mask = _values()
    total = squared_deviation_sum(values, mask, torch.tensor(3.0))
    assert total.item() == 9.0  # (1-3)^2 + (2-3)^2 + (5-3)^2 = 4 + 1 + 4
    total.backward()
    # 2 (x - 3) where counted, 0 elsewhere
    assert torch.equal(values.grad, torch.tensor([[-4.0, -2.0, 0.0], [4.0, 0.0, 0.0]]))


def test_two_pass_variance_over_parts_equals_the_whole():
    torch.manual_seed(0)
    values, mask = torch.randn(6, 5) + 100, torch.rand(6, 5) < 0.7
    kept = values[mask].double()
    mean = masked_sum(values.double(), mask) / mask.sum()
    halves = (slice(0, 2), slice(2, 6))
    total = sum(squared_deviation_sum(values[rows].double(), mask[rows], mean) for rows in halves)
    assert (total / mask.sum()).item() == pytest.approx(kept.var(correction=0).item(), rel=1e-9)


def test_whiten_by_hand():
    values, mask = _values()
    moments = {"mean": torch.tensor(3.0), "variance": torch.tensor(4.0)}
    # (1-3)/2, (2-3)/2, (5-3)/2
    expected = torch.tensor([[-1.0, -0.5, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(whiten(values, mask, **moments), expected, rtol=1e-6, atol=1e-6)
    # the mean of 3 put back, and still 0 outside the mask
    kept_mean = torch.tensor([[2.0, 2.5, 0.0], [4.0, 0.0, 0.0]])
    out = whiten(values, mask, **moments, shift_mean=False)
    torch.testing.assert_close(out, kept_mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whiten_gradient_skips_the_padding(shift_mean):
    values, mask = _values()
    mean, variance = torch.tensor(3.0), torch.tensor(4.0)
    whiten(values, mask, mean=mean, variance=variance, shift_mean=shift_mean).sum().backward()
    torch.testing.assert_close(values.grad, mask.float() / 2, rtol=1e-6, atol=0)  # 1 / sqrt(4)


def test_whiten_of_equal_values_is_finite():
    mask = torch.ones(3, dtype=torch.bool)
    out = whiten(torch.full((3,), 7.0), mask, mean=torch.tensor(7.0), variance=torch.tensor(0.0))
    assert out.tolist() == [0.0, 0.0, 0.0]


def test_whiten_epsilon_is_added_to_the_variance():
    one = torch.ones(1, dtype=torch.bool)
    out = whiten(torch.ones(1), one, mean=torch.tensor(0.0), variance=torch.tensor(1.0), epsilon=3.0)
    assert out.item() == pytest.approx(0.5)  # 1 / sqrt(1 + 3)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 3, dtype=torch.int64), "expected torch.bool"),
        (torch.ones(2, 1, dtype=torch.bool), r"values has shape \[2, 3\], expected the mask's \[2, 1\]"),
    ],
)
def test_masks_that_would_be_misread_raise(mask, message):
    values, scalar = torch.ones(2, 3), torch.tensor(1.0)
    for call in (
        lambda: check_mask(mask, values=values),
        lambda: masked_sum(values, mask),
        lambda: masked_mean(values, mask),
        lambda: squared_deviation_sum(values, mask, scalar),
        lambda: whiten(values, mask, mean=scalar, variance=scalar),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_moments_and_epsilon_are_checked():
    values, mask = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    one, many = torch.tensor(1.0), torch.ones(3)
    for call in (
        lambda: check_scalar(mean=many),
        lambda: squared_deviation_sum(values, mask, many),
        lambda: whiten(values, mask, mean=many, variance=one),
        lambda: whiten(values, mask, mean=one, variance=many),
    ):
        with pytest.raises(ValueError, match=r"has shape \[3\], expected a scalar"):
            call()
    with pytest.raises(ValueError, match="epsilon = 0"):
        whiten(values, mask, mean=one, variance=one, epsilon=0.0)
