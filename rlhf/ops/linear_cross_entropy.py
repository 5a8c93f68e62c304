"""The language-model head and its cross-entropy as one operation over chunks of tokens.

Only the logits of one chunk exist at a time, never a [tokens, vocabulary] tensor. The gradient of a softmax
cross-entropy follows from its logits alone, so the forward pass computes it while the chunk is in the cache, and
`backward` only scales it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlhf.ops.head_chunks import HeadGradients, rows_per_chunk, softmax_in_place
from rlhf.ops.losses import CrossEntropy
from rlhf.ops.masking import check_scalar, require


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor,
    denominator: Tensor,
    *,
    chunk_logits: int | None = None,
) -> CrossEntropy:
    """Sum of weights * -log softmax(hidden @ weight.T + bias)[label], divided by `denominator`.

    Shapes:  hidden [N, D]; weight [V, D]; bias [V] or None; labels [N] int64 in [0, V); weights [N] >= 0;
             denominator [] = the weights' total over every rank and micro-batch of this optimizer step.
             chunk_logits: logits held at once, in entries (default by device).
    Returns: CrossEntropy. Gradients flow to hidden, weight and bias; the weight's is summed in float32.
    Raises:  ValueError if the shapes differ, a weight is negative or NaN, or a label leaves [0, V).
    Source:  the gradient softmax(z) - onehot(label) is taken chunk by chunk as in arXiv:2410.10989 section 3.2.
    """
    _check(hidden, weight, labels, weights, denominator)
    rows = rows_per_chunk(weight, chunk_logits)
    scale = weights.float() / denominator
    if not torch.is_grad_enabled():  # otherwise a trained weight's gradient would be computed in vain
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    loss, nll = _LinearCrossEntropy.apply(hidden, weight, bias, labels, scale, rows)
    return CrossEntropy(loss, torch.where(weights > 0, nll, 0))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, scale: Tensor, rows: int
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad
        gradients = HeadGradients.empty(hidden, weight, bias, wanted)
        nll = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits, column = torch.nn.functional.linear(hidden[part], weight, bias).float(), labels[part].unsqueeze(1)
            chosen = logits.gather(1, column).squeeze(1)
            probabilities, normalizer = softmax_in_place(logits)
            nll[part] = normalizer - chosen
            if any(wanted[:3]):
                away = torch.full_like(column, -1, dtype=probabilities.dtype)
                of_logits = probabilities.scatter_add_(1, column, away).mul_(scale[part].unsqueeze(1))
                gradients.add(part, of_logits, hidden, weight)
        ctx.save_for_backward(weight, *gradients)
        ctx.mark_non_differentiable(nll)
        return (nll * scale).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        # These tensors belong to this node alone, so they are scaled in place.
        scaled = [None if each is None else each.mul_(grad_loss.to(each.dtype)) for each in saved]
        return (*HeadGradients(*scaled).narrowed(weight), None, None, None)


def _check(hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor, denominator: Tensor) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden {list(hidden.shape)}, weight {list(weight.shape)}: expected [N, D] and [V, D]")
    if labels.shape != hidden.shape[:1] or weights.shape != labels.shape:
        raise ValueError(f"labels {list(labels.shape)}, weights {list(weights.shape)}: expected [{len(hidden)}] each")
    check_scalar(denominator=denominator)
    require((weights >= 0).all(), "weights hold a negative value or NaN, expected >= 0; 0 leaves a token out")
    known = (labels >= 0) & (labels < weight.shape[0])
    require(known.all(), f"a label lies outside [0, {weight.shape[0]})")
