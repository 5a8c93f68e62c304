"""Log-probabilities of tokens, the entropy of their distribution, and sampling from it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 128  # tokens summed together when one is sampled


class SampledTokens(NamedTuple):
    """Shapes: tokens [B] int64; logprobs [B] float32 nats, under the distribution they were sampled from."""

    tokens: Tensor
    logprobs: Tensor


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at `tokens`, in float32, without keeping a log-softmax [..., V].

    Shapes:  logits [..., V]; tokens [...] int64 in [0, V).
    Returns: [...] float32 nats; -inf where the token's logit is -inf.
    Raises:  ValueError if the shapes differ, tokens are not int64, or temperature is not positive.
    """
    if tokens.shape != logits.shape[:-1]:
        raise ValueError(
            f"tokens have shape {list(tokens.shape)}, expected {list(logits.shape[:-1])}:"
            f" that of the logits {list(logits.shape)} without the vocabulary"
        )
    if tokens.dtype != torch.int64:
        raise ValueError(f"tokens have dtype {tokens.dtype}, expected torch.int64; use tokens.long()")
    scaled = _scaled(logits, temperature)
    return scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(-1)


def entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(logits / temperature); a logit of -inf is probability 0 and adds nothing.

    Shapes:  logits [..., V].
    Returns: [...] float32 nats.
    Raises:  ValueError if temperature is not positive.
    """
    logprobs = _scaled(logits, temperature).log_softmax(-1)
    finite = logprobs.masked_fill(logprobs == float("-inf"), 0)  # 0 * -inf is NaN
    return -(logprobs.exp() * finite).sum(-1)


def sampling_logits(logits: Tensor, *, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """logits / temperature with -inf outside the kept set: first the top k, then the nucleus of what is left.

    Exactly min(top_k, V) tokens survive top-k, and top-p keeps the fewest tokens whose mass reaches top_p, at
    least one; of equal logits the lower id stays. top_k = 0 and top_p = 1 cut nothing.

    Shapes:  logits [..., V].
    Returns: [..., V] float32.
    Raises:  ValueError if temperature <= 0, top_k < 0, or top_p is outside (0, 1].
    Source:  arXiv:1805.04833 (top-k); arXiv:1904.09751 section 3.1 (top-p).
    """
    if top_k < 0:
        raise ValueError(f"top_k = {top_k}, expected >= 0; 0 means no cut")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p = {top_p}, expected 0 < top_p <= 1; 1 means no cut")
    scaled = _scaled(logits, temperature)
    if 0 < top_k < scaled.shape[-1]:
        scaled = scaled.masked_fill(~_in_top_k(scaled, top_k), float("-inf"))
    if top_p < 1:
        scaled = scaled.masked_fill(~_in_nucleus(scaled, top_p), float("-inf"))
    return scaled


def sample_inverse_cdf(logits: Tensor, uniform: Tensor, *, checks: bool = True) -> SampledTokens:
    """The first token whose cumulative probability exceeds `uniform`: one sample per row from softmax(logits).

    A token of probability 0 is never returned, whatever `uniform` is. The running sum is taken over blocks of tokens,
    then inside the one block that holds the draw: one pass over the vocabulary instead of several.

    Shapes:  logits [B, V], may hold -inf; uniform [B] in [0, 1).
    Args:    checks: False leaves out the checks of values, for which a GPU's numbers must reach the host; a row whose
             largest logit is not finite then gives some token, whose log-probability is NaN.
    Returns: SampledTokens, logprobs under softmax(logits).
    Raises:  ValueError if the shapes differ, uniform leaves [0, 1), or a row's largest logit is not finite.
    Source:  inverse transform sampling, Devroye (1986), Non-Uniform Random Variate Generation, III.2.
    """
    largest = _largest(logits, checks=checks)
    if uniform.shape != logits.shape[:1]:
        raise ValueError(f"uniform has shape {list(uniform.shape)}, expected [B] = {list(logits.shape[:1])}")
    if checks and not ((uniform >= 0) & (uniform < 1)).all():
        raise ValueError("uniform has a value outside [0, 1); draw it with torch.rand")
    masses = _in_blocks((logits.float() - largest).exp_())
    # A parallel scan need not be monotone; a block without mass must not come to own a sliver of [0, total).
    through = masses.sum(-1, dtype=torch.float64).cumsum(-1).cummax(-1).values
    total = through[:, -1:]
    target = uniform.double().unsqueeze(-1) * total  # rounds to at most the last float64 below total
    block = torch.searchsorted(through, target, right=True).clamp_(max=through.shape[1] - 1)
    before = torch.where(block > 0, through.gather(1, (block - 1).clamp(min=0)), 0)
    inside = masses.gather(1, block.unsqueeze(-1).expand(-1, 1, BLOCK)).squeeze(1)
    reached = before + inside.double().cumsum(-1)
    place = torch.where((reached > target) & (inside > 0), 0, 1).argmin(-1, keepdim=True)
    # The block's own sum may round above its running sum: the draw then falls on its last token with mass.
    last = (inside > 0).long().mul_(torch.arange(BLOCK, device=logits.device)).argmax(-1, keepdim=True)
    found = ((reached > target) & (inside > 0)).any(-1, keepdim=True)
    tokens = block * BLOCK + torch.where(found, place, last)
    logprobs = logits.gather(1, tokens).float() - largest - total.log().float()
    return SampledTokens(tokens.squeeze(1), logprobs.squeeze(1))


def _in_blocks(masses: Tensor) -> Tensor:
    """[B, V] as [B, blocks, BLOCK], filled up with zeros."""
    spare = -masses.shape[1] % BLOCK
    return torch.nn.functional.pad(masses, (0, spare)).view(len(masses), -1, BLOCK)


def greedy(logits: Tensor, *, checks: bool = True) -> SampledTokens:
    """The most probable token of each row; `checks` as in `sample_inverse_cdf`.

    Shapes:  logits [B, V], may hold -inf.
    Returns: SampledTokens, logprobs under softmax(logits).
    Raises:  ValueError if logits are not [B, V], or a row's largest logit is not finite.
    """
    _largest(logits, checks=checks)
    tokens = logits.argmax(-1)
    return SampledTokens(tokens, token_logprobs(logits, tokens))


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}, expected > 0; to take the likeliest, use greedy()")
    wide = logits.float()
    return wide if temperature == 1 else wide / temperature  # spare the copy


def _in_top_k(scaled: Tensor, top_k: int) -> Tensor:
    kth = scaled.topk(top_k, dim=-1).values[..., -1:]
    above, tied = scaled > kth, scaled == kth
    room = top_k - above.sum(-1, keepdim=True)
    return above | (tied & (tied.cumsum(-1) <= room))


def _in_nucleus(scaled: Tensor, top_p: float) -> Tensor:
    descending = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
    # The mass before the first is exactly 0, so one token always stays.
    before = descending.values.cumsum(-1) - descending.values
    return torch.zeros_like(scaled, dtype=torch.bool).scatter(-1, descending.indices, before < top_p)


def _largest(logits: Tensor, *, checks: bool) -> Tensor:
    """[B, 1] float32, the largest logit of each row; with `checks` refused where that is not a finite number."""
    if logits.ndim != 2:
        raise ValueError(f"logits have shape {list(logits.shape)}, expected [B, V]")
    largest = logits.amax(-1, keepdim=True).float()
    if not checks:
        return largest
    drawable = largest.isfinite().squeeze(1)
    if not drawable.all():
        row = int(drawable.logical_not().nonzero()[0, 0])
        raise ValueError(f"logits row {row} has NaN, +inf or no finite entry; check model and cuts")
    return largest
