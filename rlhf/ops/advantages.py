"""Advantage estimators, and how much of the returns the values explain."""

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


def rloo(totals: Tensor) -> Tensor:
    """Reward of an answer less the mean reward of the other answers to its prompt (leave one out).

    Shapes:  totals [G, K] reward units, the sum of an answer's token rewards; G prompts, K answers each.
    Returns: [G, K] reward units, one number for all tokens of an answer.
    Raises:  ValueError if totals are not [G, K] with K >= 2.
    Source:  arXiv:2402.14740 section 2.3, the estimator RLOO.
    """
    known = _grouped(totals)
    others = (known.sum(1, keepdim=True) - known) / (known.shape[1] - 1)
    return known - others


def grpo(totals: Tensor, *, epsilon: float = 1e-4) -> Tensor:
    """Reward of an answer in standard deviations from the mean of its prompt's answers.

    A group of equal rewards gives 0. The deviation is that of a sample (divided by K - 1); `epsilon` is added to it.

    Shapes:  totals [G, K] reward units, the sum of an answer's token rewards; G prompts, K answers each.
    Returns: [G, K] standard deviations, one number for all tokens of an answer.
    Raises:  ValueError if totals are not [G, K] with K >= 2, or epsilon is not positive.
    Source:  arXiv:2402.03300 section 4.1.2 (outcome supervision).
    """
    known = _grouped(totals)
    if not epsilon > 0:
        raise ValueError(f"epsilon = {epsilon}, expected > 0: equal rewards have deviation 0")
    centred = known - known.mean(1, keepdim=True)
    return centred / (known.std(1, keepdim=True) + epsilon)


def discounted_returns(rewards: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """Rewards to come: G_t = r_t + gamma * G_{t+1}. With KL costs among the rewards and whitened over the whole
    batch these are the advantages of REINFORCE++.

    Shapes:  rewards [B, T] reward units; mask [B, T] bool, in each row a run of True from the left.
    Returns: [B, T] reward units, 0 outside the mask.
    Raises:  ValueError as `gae`.
    Source:  arXiv:2501.03262 section 3.
    """
    return gae(rewards, torch.zeros_like(rewards), mask, gamma=gamma, lam=1.0).returns


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the mask: 1 for a perfect critic, 0 for a constant, below 0 worse.

    Shapes:  values, returns [...] reward units; mask [...] bool, at least one True.
    Raises:  ValueError if the shapes differ or the mask is not boolean.
    """
    check_mask(mask, values=values, returns=returns)
    due = returns[mask]
    residual = due - values[mask]
    return float(1 - residual.var(unbiased=False) / due.var(unbiased=False).clamp(min=1e-8))


def _grouped(totals: Tensor) -> Tensor:
    if totals.ndim != 2 or totals.shape[1] < 2:
        raise ValueError(f"totals have shape {list(totals.shape)}, expected [G, K] with K >= 2 answers to a prompt")
    return widen(totals)
