"""Truncated importance weights by hand."""

import math

import pytest
import torch

from rlhf.ops.importance import truncated_importance, weighted_advantages


def test_weights_and_gaps_by_hand():
    ours = torch.tensor([-1.0, -2.0, -1.0, float("nan")])
    theirs = torch.tensor([-1.0, -1.0, -3.0, 5.0])
    mask = torch.tensor([True, True, True, False])
    out = truncated_importance(ours, theirs, mask, cap=2.0)
    # ratios 1, e^-1, e^2 capped at 2; padding 1
    assert out.weights.tolist() == pytest.approx([1.0, math.exp(-1), 2.0, 1.0])
    assert out.mean_gap.item() == pytest.approx((0 + 1 + 2) / 3)
    assert out.max_gap.item() == pytest.approx(2.0)


def test_no_gradient_reaches_the_weights():
    ours = torch.zeros(2, requires_grad=True)
    assert not truncated_importance(ours, torch.ones(2), torch.ones(2, dtype=torch.bool), cap=2.0).weights.requires_grad


def test_a_cap_below_one_is_refused():
    with pytest.raises(ValueError, match="cap"):
        truncated_importance(torch.zeros(1), torch.zeros(1), torch.ones(1, dtype=torch.bool), cap=0.5)


def test_weighted_advantages_by_hand():
    advantages = torch.tensor([[2.0, -3.0, float("nan")]])
    weights, mask = torch.tensor([[0.5, 2.0, 1.0]]), torch.tensor([[True, True, False]])
    assert weighted_advantages(advantages, weights, mask).tolist() == [[1.0, -6.0, 0.0]]
    with pytest.raises(ValueError, match="weights has shape"):
        weighted_advantages(advantages, weights[0], mask)
