"""Masked sums, moments and whitening."""

import pytest
import torch
from torch import Tensor

from rlhf.ops.masking import (
    check_mask,
    check_scalar,
    masked_mean,
    masked_sum,
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


def test_whiten_by_hand():
    """1, 2 and 6 counted: mean 3, variance (4 + 1 + 9) / 3."""
    values, mask = _values()
    values = torch.where(values == 5, 6.0, values.detach())
    deviation = (14 / 3) ** 0.5
    expected = torch.tensor([[-2 / deviation, -1 / deviation, 0.0], [3 / deviation, 0.0, 0.0]])
    torch.testing.assert_close(whiten(values, mask), expected, rtol=1e-6, atol=1e-6)


def test_whitened_values_have_mean_zero_and_variance_one():
    torch.manual_seed(0)
    values, mask = torch.randn(6, 5, dtype=torch.float64) * 3 + 100, torch.rand(6, 5) < 0.7
    kept = whiten(values, mask)[mask]
    assert kept.mean().item() == pytest.approx(0.0, abs=1e-9)
    assert kept.var(correction=0).item() == pytest.approx(1.0, rel=1e-6)  # epsilon is 1e-9 of the variance


def test_whiten_of_equal_values_is_finite():
    mask = torch.ones(3, dtype=torch.bool)
    assert whiten(torch.full((3,), 7.0), mask).tolist() == [0.0, 0.0, 0.0]


def test_whiten_epsilon_is_added_to_the_variance():
    """1 and -1: variance 1, so 1 / sqrt(1 + 3)."""
    out = whiten(torch.tensor([1.0, -1.0]), torch.ones(2, dtype=torch.bool), epsilon=3.0)
    assert out.tolist() == pytest.approx([0.5, -0.5])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 3, dtype=torch.int64), "expected torch.bool"),
        (torch.ones(2, 1, dtype=torch.bool), r"values has shape \[2, 3\], expected the mask's \[2, 1\]"),
    ],
)
def test_masks_that_would_be_misread_raise(mask, message):
    values = torch.ones(2, 3)
    for call in (
        lambda: check_mask(mask, values=values),
        lambda: masked_sum(values, mask),
        lambda: masked_mean(values, mask),
        lambda: whiten(values, mask),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_counts_and_epsilon_are_checked():
    with pytest.raises(ValueError, match=r"count has shape \[3\], expected a scalar"):
        check_scalar(count=torch.ones(3))
    with pytest.raises(ValueError, match="epsilon = 0"):
        whiten(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), epsilon=0.0)
