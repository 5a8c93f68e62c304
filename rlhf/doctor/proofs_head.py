"""Proofs of the language-model head: its kernels against all logits, and a model's own logits against its head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow, pack_sequences
from rlhf.doctor.checks import Check
from rlhf.doctor.comparison import compared
from rlhf.models.head import HeadKind, LanguageModelHead, LossRequest
from rlhf.ops.linear_cross_entropy import linear_cross_entropy
from rlhf.ops.linear_logprobs import TokenLogprobs, linear_logprobs
from rlhf.ops.logprobs import token_logprobs

FIX = "set model.head=whole"
LOGPROB_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2, "float16": 0.05}  # nats
NUM_CHECKED = 8


class Policy(Protocol):
    """A causal LM with logits, and log-probabilities computed by its head."""

    @property
    def dtype(self) -> str: ...
    def infer(self, row: PackedRow) -> Tensor: ...
    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs: ...


def head_proof(
    device: torch.device, dtype: torch.dtype, kind: HeadKind, *, tokens: int = 24, width: int = 32, words: int = 80
) -> Check:
    """Compares loss and gradients of a head kernel with those from all logits, and of `chunked` its log-probabilities.

    Inputs are rounded to `dtype`; the expected values are computed from them in float32. Chunks of five tokens, so
    that the joints between them are crossed.
    """
    drawn = _Drawn.on(device, dtype, tokens, width, words)
    pairs = dict(_paired("loss", _loss(kind, drawn), _whole_loss(drawn)))
    if kind == "chunked":
        pairs |= _paired("log-probabilities", _logprobs(drawn), _whole_logprobs(drawn))
    return compared(f"{kind} head", pairs, dtype, fix=FIX)


def model_head_proof(policy: Policy, item: EncodedSequence) -> Check:
    """Compares a model's head with the model's own logits, which some architectures scale or cap, on a few tokens.

    Must be called by all ranks. Log-probabilities that are not finite pass: the first step raises for them.
    """
    row = pack_sequences([item])
    few = slice(0, NUM_CHECKED)
    row = replace(row, positions=row.positions[few], labels=row.labels[few], weights=row.weights[few])
    logits = policy.infer(row)
    expected = token_logprobs(logits, row.labels.to(logits.device))
    found = policy.infer_logprobs(row, 1.0).logprobs
    difference, limit = float((found - expected).abs().max()), LOGPROB_TOLERANCE[policy.dtype]
    said = f"log-probabilities of {len(found)} tokens differ from those of the model's own logits by at most "
    said += f"{difference:.3g} nats, tolerance {limit:g}"
    if difference <= limit or not bool(expected.isfinite().all()):
        return Check("the model's head", "passed", said)
    return Check("the model's head", "failed", f"{said}: the architecture changes its logits after the head", FIX)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Random inputs of a head: hidden [N, D], weight [V, D], bias [V] in one dtype, labels and weights [N]."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    labels: Tensor
    weights: Tensor

    @classmethod
    def on(cls, device: torch.device, dtype: torch.dtype, tokens: int, width: int, words: int) -> _Drawn:
        generator = torch.Generator().manual_seed(12)
        hidden = torch.randn(tokens, width, generator=generator)
        weight = torch.randn(words, width, generator=generator) * 2 * width**-0.5
        bias = torch.randn(words, generator=generator)
        labels = torch.randint(words, (tokens,), generator=generator)
        weights = torch.tensor([1.0, 0.5, 0.0, 1.0]).repeat(tokens // 4 + 1)[:tokens]
        hidden, weight, bias = (each.to(device, dtype).requires_grad_() for each in (hidden, weight, bias))
        return cls(hidden, weight, bias, labels.to(device), weights.to(device))

    @property
    def total(self) -> Tensor:
        return self.weights.sum()

    @property
    def trained(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.hidden, self.weight, self.bias

    @property
    def chunk(self) -> int:
        """Entries of the logits of five tokens."""
        return 5 * len(self.weight)

    def logits(self) -> Tensor:
        """All logits in float32."""
        return torch.nn.functional.linear(self.hidden.float(), self.weight.float(), self.bias.float())


def _loss(kind: HeadKind, drawn: _Drawn) -> list[Tensor]:
    with torch.enable_grad():
        if kind == "chunked":
            arguments = (*drawn.trained, drawn.labels, drawn.weights, drawn.total)
            loss = linear_cross_entropy(*arguments, chunk_logits=drawn.chunk).loss
        else:
            loss = (
                LossRequest(drawn.labels, drawn.weights, drawn.total).from_head(_head(kind, drawn), drawn.hidden).loss
            )
        return [loss.detach(), *torch.autograd.grad(loss, drawn.trained)]


def _head(kind: HeadKind, drawn: _Drawn) -> LanguageModelHead:
    head = LanguageModelHead(1, 1, device="meta")
    head.kind = kind
    del head.weight, head.bias
    vars(head).update(weight=drawn.weight, bias=drawn.bias)
    return head


def _whole_loss(drawn: _Drawn) -> list[Tensor]:
    with torch.enable_grad():
        nll = torch.nn.functional.cross_entropy(drawn.logits(), drawn.labels, reduction="none")
        loss = (nll * drawn.weights).sum() / drawn.total
        return [loss.detach(), *torch.autograd.grad(loss, drawn.trained)]


def _logprobs(drawn: _Drawn) -> list[Tensor]:
    with torch.enable_grad():
        found = linear_logprobs(*drawn.trained, drawn.labels, chunk=drawn.chunk, kept=0).logprobs
        return [found.detach(), *torch.autograd.grad((found * drawn.weights).sum(), drawn.trained)]


def _whole_logprobs(drawn: _Drawn) -> list[Tensor]:
    with torch.enable_grad():
        found = drawn.logits().log_softmax(-1).gather(1, drawn.labels.unsqueeze(1)).squeeze(1)
        return [found.detach(), *torch.autograd.grad((found * drawn.weights).sum(), drawn.trained)]


def _paired(what: str, found: list[Tensor], expected: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    names = (what, *(f"{what} d{each}" for each in ("hidden", "weight", "bias")))
    return dict(zip(names, zip(found, expected, strict=True), strict=True))
