"""Correction for answers that were drawn by another program than the one that learns from them."""

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


def truncated_importance(logprobs: Tensor, drawn_logprobs: Tensor, mask: Tensor, *, cap: float) -> Importance:
    """min(p_trainer / p_engine, cap) of each token: what an advantage is multiplied by when the two differ.

    Shapes:  logprobs [...] nats by the trainer; drawn_logprobs [...] nats by the engine that drew the tokens;
             mask [...] bool, True = response token.
    Returns: Importance, detached; the gaps are |logprobs - drawn_logprobs| over the mask.
    Raises:  ValueError if the shapes differ, the mask is not boolean, or cap is below 1.
    Source:  truncated importance sampling, Ionides (2008), J. Comput. Graph. Stat. 17(2).
    """
    check_mask(mask, logprobs=logprobs, drawn_logprobs=drawn_logprobs)
    if not cap >= 1:
        raise ValueError(f"cap = {cap}, expected >= 1: a lower one would shrink every token")
    gap = torch.where(mask, logprobs - drawn_logprobs, 0).detach()
    size = gap.abs()
    return Importance(gap.exp().clamp(max=cap), size.sum() / mask.sum().clamp(min=1), size.max())
