"""Speculative sampling: values by hand, and the law of a token by summing over every draft."""

from __future__ import annotations

import pytest
import torch

from rlhf.ops.speculative import accepted, residual_logits

FINE = 200_001


def test_a_token_is_kept_as_often_as_it_is_as_likely_as_before() -> None:
    kept, new = torch.tensor([0.5, 0.5, 0.2, 0.0]), torch.tensor([0.1, 0.5, 0.8, 0.9])
    uniform = torch.arange(FINE, dtype=torch.float64) / FINE
    shares = [accepted(kept[[i]], new[[i]], uniform).double().mean().item() for i in range(4)]
    assert shares == pytest.approx([0.1 / 0.5, 1.0, 1.0, 0.0], abs=1e-5)  # min(1, new / kept), and 0 where unknown


def test_the_residual_by_hand() -> None:
    new, kept = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.1, 0.6, 0.0]])
    # max(0, p - m) = 0.4, 0, 0.2
    torch.testing.assert_close(residual_logits(new, kept).softmax(-1), torch.tensor([[2 / 3, 0.0, 1 / 3]]))


def test_a_residual_of_nothing_is_the_new_distribution() -> None:
    new = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    found = residual_logits(new, torch.tensor([[0.5, 0.5], [0.2, 0.8]])).softmax(-1)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [1.0, 0.0]]))


@pytest.mark.parametrize("top", [0, 1, 3, 7], ids="top {}".format)
def test_the_tokens_have_the_new_distribution_whatever_was_kept(top: int) -> None:
    """sum_x q(x) [min(1, p(x) / m(x)) 1(v = x) + (1 - min(1, p(x) / m(x))) r(v)] = p(v), over all x."""
    generator = torch.Generator().manual_seed(top)
    old, new = (torch.rand(50, 7, generator=generator).square().double() for _ in range(2))
    old, new = old / old.sum(-1, keepdim=True), new / new.sum(-1, keepdim=True)
    kept = torch.where(old.argsort(-1, descending=True).argsort(-1) < top, old, 0)
    share = torch.where(kept > 0, (new / kept).clamp(max=1), 0)
    found = old * share + (old * (1 - share)).sum(-1, keepdim=True) * residual_logits(new, kept).softmax(-1)
    torch.testing.assert_close(found, new, rtol=0, atol=1e-12)
    # and the share of tokens kept is the largest that the kept probabilities allow
    torch.testing.assert_close((old * share).sum(-1), torch.minimum(kept, new).sum(-1), rtol=0, atol=1e-12)
