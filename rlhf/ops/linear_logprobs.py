"""Log-probabilities of tokens, and the entropy around them, from hidden states: the head over chunks of tokens.

Unlike that of a cross-entropy, the gradient depends on what follows (a clipped ratio) and is not known in the forward
pass. A limited number of probabilities is kept for it; beyond that, `backward` computes each chunk's logits again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlhf.ops.head_chunks import HeadGradients, rows_per_chunk, softmax_in_place
from rlhf.ops.masking import require

KEPT = {"cpu": 2**26, "cuda": 2**27}  # probabilities held from forward to backward, in entries (256 MiB, 512 MiB)


class TokenLogprobs(NamedTuple):
    """Shapes: [N] float32 nats each, of softmax(logits / temperature); entropy is 0 where it was not asked for."""

    logprobs: Tensor
    entropy: Tensor


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    kept: int | None = None,
    chunk: int | None = None,
) -> TokenLogprobs:
    """log softmax(logits / temperature) at `tokens`, and its entropy, with logits = hidden @ weight.T + bias.

    Shapes:  hidden [N, D]; weight [V, D]; bias [V] or None; tokens [N] int64 in [0, V). kept, chunk: entries of
             [tokens, V] held until the backward pass, and at a time (defaults by device).
    Returns: TokenLogprobs; gradients flow to hidden, weight and bias, the weight's is summed in float32.
    Raises:  ValueError if the shapes differ, a token leaves [0, V), or temperature is not positive.
    """
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or tokens.shape != hidden.shape[:1]:
        shapes = f"hidden {list(hidden.shape)}, weight {list(weight.shape)}, tokens {list(tokens.shape)}"
        raise ValueError(f"{shapes}: expected [N, D], [V, D], [N]")
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}, expected > 0")
    known = (tokens >= 0) & (tokens < weight.shape[0])
    require(known.all(), f"a token lies outside [0, {weight.shape[0]})")
    words, device = weight.shape[0], hidden.device.type
    rows = rows_per_chunk(weight, chunk)
    if not torch.is_grad_enabled():
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    wanted = any(each is not None and each.requires_grad for each in (hidden, weight, bias))
    keep = wanted and len(hidden) * words <= (KEPT.get(device, 2**26) if kept is None else kept)
    logprobs, entropy = _LinearLogprobs.apply(hidden, weight, bias, tokens, temperature, with_entropy, rows, keep)
    return TokenLogprobs(logprobs, entropy)


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        temperature: float,
        with_entropy: bool,
        rows: int,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        entropy, shift = torch.zeros_like(logprobs), torch.empty_like(logprobs)
        pieces = []
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            scaled = _scaled_logits(hidden[part], weight, bias, temperature)
            chosen = scaled.gather(1, tokens[part].unsqueeze(1)).squeeze(1)
            probabilities, shift[part] = softmax_in_place(scaled)
            logprobs[part] = chosen - shift[part]
            if with_entropy:
                entropy[part] = -torch.special.xlogy(probabilities, probabilities).sum(-1)
            if keep:
                pieces.append(probabilities)
        ctx.save_for_backward(hidden, weight, bias, tokens, shift, entropy, *pieces)
        ctx.temperature, ctx.rows = temperature, rows
        ctx.set_materialize_grads(False)  # an unused output has no gradient, and none is computed for it
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, shift, entropy, *pieces = ctx.saved_tensors
        gradients = HeadGradients.empty(hidden, weight, bias, ctx.needs_input_grad)
        if grad_logprobs is None:
            grad_logprobs = torch.zeros_like(shift)
        for number, start in enumerate(range(0, len(hidden), ctx.rows)):
            part = slice(start, start + ctx.rows)
            if pieces:
                probabilities = pieces[number]
            else:
                scaled = _scaled_logits(hidden[part], weight, bias, ctx.temperature)
                probabilities = scaled.sub_(shift[part].unsqueeze(1)).exp_()
            up = grad_logprobs[part].unsqueeze(1)
            slope = -up
            if grad_entropy is not None:  # d entropy / d z = -p (log p + entropy)
                logs = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
                slope = slope - grad_entropy[part].unsqueeze(1) * (logs + entropy[part].unsqueeze(1))
            gradient = probabilities.mul_(slope).scatter_add_(1, tokens[part].unsqueeze(1), up).div_(ctx.temperature)
            gradients.add(part, gradient, hidden, weight)
        return (*gradients.narrowed(weight), *[None] * 5)


def _scaled_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
    return logits if temperature == 1 else logits.div_(temperature)
