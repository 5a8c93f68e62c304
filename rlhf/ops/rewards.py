"""The reward of each token: a KL cost everywhere and the score at the end of the response."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlhf.ops.masking import check_mask

KlKind = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, kind: KlKind) -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy sampled.

    With d = logprobs - reference_logprobs: k1 = d (unbiased, may be negative), k2 = d^2 / 2 (biased, low
    variance), k3 = exp(-d) - 1 + d (unbiased, never negative).

    Shapes:  logprobs, reference_logprobs [...] nats; mask [...] bool, True = response token.
    Returns: [...] nats; 0 outside the mask.
    Raises:  ValueError if the shapes differ, the mask is not boolean, or the kind is unknown.
    Source:  joschu.net/blog/kl-approx.html.
    """
    check_mask(mask, logprobs=logprobs, reference_logprobs=reference_logprobs)
    log_ratio = torch.where(mask, logprobs - reference_logprobs, 0)
    match kind:
        case "k1":
            return log_ratio
        case "k2":
            return log_ratio.square() / 2
        case "k3":
            return torch.expm1(-log_ratio) + log_ratio
        case _:
            raise ValueError(f"kind = {kind!r}, expected 'k1', 'k2' or 'k3'")


def token_rewards(
    scores: Tensor,
    kl: Tensor,
    mask: Tensor,
    finished: Tensor,
    *,
    kl_coefficient: float,
    score_clip: float | None,
    missing_eos_penalty: float,
    steps: Tensor | None = None,
) -> Tensor:
    """-kl_coefficient * kl on every response token, plus the score on the last one, plus rewards of earlier steps.

    The last response token is the sampled EOS when the response finished. The score, and the reward of each earlier
    token, are clipped to +-score_clip; then missing_eos_penalty is subtracted for an unfinished response.

    Shapes:  scores [B] reward units; kl [B, T] nats; mask [B, T] bool, True = response token, EOS among them;
             finished [B] bool, True = ended with EOS; steps [B, T] reward units, None for none.
    Returns: [B, T] reward units; 0 outside the mask, and all 0 for a row whose mask is empty.
    Raises:  ValueError if the shapes differ, mask or finished is not boolean, score_clip is not None and not
             positive, or kl_coefficient or missing_eos_penalty is negative.
    Source:  arXiv:1909.08593 eq. 2, its sum over tokens spread to the token each term belongs to; rewards of steps:
             arXiv:2211.14275 (process-based feedback).
    """
    _check_rows(scores, kl, mask, finished)
    if score_clip is not None and not score_clip > 0:
        raise ValueError(f"score_clip = {score_clip}, expected > 0, or None for no clipping")
    if not (kl_coefficient >= 0 and missing_eos_penalty >= 0):
        raise ValueError(
            f"kl_coefficient = {kl_coefficient}, missing_eos_penalty = {missing_eos_penalty}:"
            " expected both >= 0, they are subtracted"
        )
    clipped = scores if score_clip is None else scores.clamp(-score_clip, score_clip)
    final = torch.where(finished, clipped, clipped - missing_eos_penalty)
    rewards = torch.where(mask, -kl_coefficient * kl, 0) + torch.where(_is_last(mask), final.unsqueeze(1), 0)
    if steps is None:
        return rewards
    check_mask(mask, steps=steps)
    paid = steps if score_clip is None else steps.clamp(-score_clip, score_clip)
    return rewards + torch.where(mask, paid, 0)


def overlong_rewards(mask: Tensor, *, limit: int, buffer: int, penalty: float) -> Tensor:
    """A cost of answers that come close to the limit, on their last token: 0 up to `limit - buffer` tokens, then
    growing linearly to `penalty` at `limit`.

    Shapes:  mask [B, T] bool, True = response token, EOS among them; limit, buffer in tokens; penalty in reward units.
    Returns: [B, T] reward units, at most 0; 0 but on the last response token.
    Raises:  ValueError if the mask is not boolean [B, T], buffer leaves [1, limit], or penalty is negative.
    Source:  arXiv:2503.14476 eq. 13, with `penalty` in place of 1.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {list(mask.shape)}, expected [B, T]")
    check_mask(mask)
    if not 1 <= buffer <= limit:
        raise ValueError(f"buffer = {buffer}, expected 1 <= buffer <= limit = {limit} tokens")
    if not penalty >= 0:
        raise ValueError(f"penalty = {penalty}, expected >= 0: it is subtracted")
    beyond = (mask.sum(1) - (limit - buffer)).clamp(0, buffer)
    return torch.where(_is_last(mask), (-penalty * beyond / buffer).unsqueeze(1), 0)


def _is_last(mask: Tensor) -> Tensor:
    """[B, T] bool: the last True of each row."""
    return mask & (mask.flip(1).cumsum(1).flip(1) == 1)  # counted from the right, it is the first


def _check_rows(scores: Tensor, kl: Tensor, mask: Tensor, finished: Tensor) -> None:
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {list(mask.shape)}, expected [B, T]")
    check_mask(mask, kl=kl)
    for name, tensor in (("scores", scores), ("finished", finished)):
        if tensor.shape != mask.shape[:1]:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected [B] = {list(mask.shape[:1])}")
    if finished.dtype != torch.bool:
        raise ValueError(f"finished has dtype {finished.dtype}, expected torch.bool (True = ended with EOS)")
