"""Advantage estimators."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf.ops.masking import check_mask, widen


class Advantages(NamedTuple):
    """Shapes: advantages, returns [B, T] reward units, 0 outside the mask."""

    advantages: Tensor
    returns: Tensor


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> Advantages:
    """Generalized advantage estimation over right-padded responses; returns = advantages + values.

    delta_t = r_t + gamma * V_{t+1} - V_t and A_t = delta_t + gamma * lam * A_{t+1}. The response ends the
    episode: V and A after its last token are 0.

    Shapes:  rewards, values [B, T] reward units; mask [B, T] bool, in each row a run of True from the left
             (an empty run is allowed).
    Returns: Advantages.
    Raises:  ValueError if the shapes differ, a row's mask is not such a run, or gamma or lam leaves [0, 1].
    Source:  arXiv:1506.02438 eq. 16.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {list(mask.shape)}, expected [B, T]")
    check_mask(mask, rewards=rewards, values=values)
    for name, factor in (("gamma", gamma), ("lam", lam)):
        if not 0 <= factor <= 1:
            raise ValueError(f"{name} = {factor}, expected 0 <= {name} <= 1")
    gapped = (mask[:, 1:] & ~mask[:, :-1]).any(1)
    if gapped.any():
        row = int(gapped.nonzero()[0, 0])
        raise ValueError(f"mask row {row} is not one run of True from the left; pad responses on the right")
    known_rewards, known_values = widen(torch.where(mask, rewards, 0)), widen(torch.where(mask, values, 0))
    advantages = torch.zeros_like(known_values)
    next_value = next_advantage = known_values.new_zeros(len(mask))
    for step in reversed(range(mask.shape[1])):
        delta = known_rewards[:, step] + gamma * next_value - known_values[:, step]
        next_advantage = delta + gamma * lam * next_advantage
        next_value = known_values[:, step]
        advantages[:, step] = next_advantage
    return Advantages(advantages, advantages + known_values)
