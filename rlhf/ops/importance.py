"""Importance weights for answers sampled by another engine than the one that trains."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf.ops.masking import check_mask


class Importance(NamedTuple):
    """Shapes: weights [...] in [0, cap], 1 outside the mask; mean_gap, max_gap [] nats."""

    weights: Tensor
    mean_gap: Tensor
    max_gap: Tensor


def truncated_importance(logprobs: Tensor, engine_logprobs: Tensor, mask: Tensor, *, cap: float) -> Importance:
    """min(p_trainer / p_engine, cap) of each token: the weight of its advantage where the two engines differ.

    Shapes:  logprobs [...] nats by the trainer; engine_logprobs [...] nats by the engine that sampled the tokens;
             mask [...] bool, True = response token.
    Returns: Importance, detached; the gaps are |logprobs - engine_logprobs| over the mask.
    Raises:  ValueError if the shapes differ, the mask is not boolean, or cap is below 1.
    Source:  truncated importance sampling, Ionides (2008), J. Comput. Graph. Stat. 17(2).
    """
    check_mask(mask, logprobs=logprobs, engine_logprobs=engine_logprobs)
    if not cap >= 1:
        raise ValueError(f"cap = {cap}, expected >= 1: a lower one would shrink every token")
    gap = torch.where(mask, logprobs - engine_logprobs, 0).detach()
    size = gap.abs()
    return Importance(gap.exp().clamp(max=cap), size.sum() / mask.sum().clamp(min=1), size.max())


def weighted_advantages(advantages: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Advantages times importance weights, so that tokens count as often as the trainer would have sampled them.

    Shapes:  advantages [...] reward units or standard deviations; weights [...] >= 0; mask [...] bool.
    Returns: [...] in the unit of `advantages`; 0 outside the mask.
    Raises:  ValueError if the shapes differ or the mask is not boolean.
    Source:  as `truncated_importance`.
    """
    check_mask(mask, advantages=advantages, weights=weights)
    return torch.where(mask, advantages * weights, 0)
