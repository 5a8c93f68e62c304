"""The language-model head and its cross-entropy as one operation over chunks of tokens.

Logits of one chunk exist at a time, so a [tokens, vocabulary] tensor is never held. The gradient of a softmax
cross-entropy is known as soon as its logits are, so it is taken in the forward pass while the chunk is in the cache,
and `backward` only scales it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlhf.ops.losses import CrossEntropy
from rlhf.ops.masking import check_scalar

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**27}  # entries: 16 MiB stays in a CPU's cache; a GPU wants larger products


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
    rows = max(1, (chunk_logits or CHUNK_LOGITS.get(hidden.device.type, 2**22)) // weight.shape[0])
    scale = weights.float() / denominator
    if not torch.is_grad_enabled():  # else a trained weight's gradient would be computed and thrown away
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    loss, nll = _LinearCrossEntropy.apply(hidden, weight, bias, labels, scale, rows)
    return CrossEntropy(loss, torch.where(weights > 0, nll, 0))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, scale: Tensor, rows: int
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad
        gradients = _Gradients(
            torch.empty_like(hidden) if wanted[0] else None,
            torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None,
            torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None,
        )
        nll = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = torch.nn.functional.linear(hidden[part], weight, bias).float()
            nll[part], probabilities = _softmax_in_place(logits, labels[part])
            if any(wanted[:3]):
                _add_gradients(gradients, part, probabilities, hidden, weight, labels, scale)
        ctx.save_for_backward(*gradients)
        ctx.types = (hidden.dtype, weight.dtype)
        ctx.mark_non_differentiable(nll)
        return (nll * scale).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, of_weight, of_bias = ctx.saved_tensors
        hidden_type, weight_type = ctx.types
        # These tensors belong to this node alone, so they are scaled where they lie.
        return (
            None if of_hidden is None else of_hidden.mul_(grad_loss.to(of_hidden.dtype)).to(hidden_type),
            None if of_weight is None else of_weight.mul_(grad_loss).to(weight_type),
            None if of_bias is None else of_bias.mul_(grad_loss).to(weight_type),
            None,
            None,
            None,
        )


class _Gradients(NamedTuple):
    """Gradients of the loss for an upstream gradient of 1; None where none is wanted."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def _softmax_in_place(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods [n], and the probabilities, which take the memory of the logits [n, V]."""
    column = labels.unsqueeze(1)
    largest, chosen = logits.amax(-1, keepdim=True), logits.gather(1, column)
    logits.sub_(largest).exp_()
    total = logits.sum(-1, keepdim=True)
    nll = (total.log() + largest - chosen).squeeze(1)
    return nll, logits.div_(total)


def _add_gradients(
    gradients: _Gradients,
    part: slice,
    probabilities: Tensor,
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    scale: Tensor,
) -> None:
    """Adds one chunk's share; `probabilities` [n, V] are turned into the logits' gradient in place."""
    column, share = labels[part].unsqueeze(1), scale[part].unsqueeze(1)
    probabilities.scatter_add_(1, column, torch.full_like(column, -1, dtype=probabilities.dtype)).mul_(share)
    narrow = probabilities.to(hidden.dtype)
    if gradients.hidden is not None:
        torch.mm(narrow, weight, out=gradients.hidden[part])
    if gradients.weight is not None:
        if narrow.dtype == torch.float32:
            gradients.weight.addmm_(narrow.T, hidden[part])
        else:
            gradients.weight.add_(narrow.T @ hidden[part])
    if gradients.bias is not None:
        gradients.bias.add_(probabilities.sum(0))


def _check(hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor, denominator: Tensor) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden {list(hidden.shape)}, weight {list(weight.shape)}: expected [N, D] and [V, D]")
    if labels.shape != hidden.shape[:1] or weights.shape != labels.shape:
        raise ValueError(f"labels {list(labels.shape)}, weights {list(weights.shape)}: expected [{len(hidden)}] each")
    check_scalar(denominator=denominator)
    if not (weights >= 0).all():
        raise ValueError("weights hold a negative value or NaN, expected >= 0; 0 leaves a token out")
    if ((labels < 0) | (labels >= weight.shape[0])).any():
        raise ValueError(f"a label lies outside [0, {weight.shape[0]})")
