"""The language-model head where it meets its loss: logits in chunks, whole, or by Liger's kernel."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlhf.errors import ModelError, require_packages
from rlhf.ops.linear_cross_entropy import linear_cross_entropy
from rlhf.ops.linear_logprobs import linear_logprobs
from rlhf.ops.losses import CrossEntropy

FEW_ROWS = 16
HeadKind = Literal["chunked", "whole", "liger"]


class LanguageModelHead(nn.Linear):
    """A linear head that computes its own loss when it is given labels.

    The loss is taken inside the module's `forward`, where ZeRO 3 has gathered the weight.
    """

    kind: HeadKind = "chunked"

    def forward(
        self,
        hidden: Tensor,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        denominator: Tensor | None = None,
        *,
        temperature: float | None = None,
        with_entropy: bool = False,
    ) -> Any:
        """Logits [..., V]. For hidden [N, D] with labels [N]: a CrossEntropy, given weights [N] and the denominator [];
        TokenLogprobs, given a temperature."""
        if labels is None:
            return self._logits(hidden)
        if temperature is not None:
            settings: dict[str, Any] = {"temperature": temperature, "with_entropy": with_entropy}
            return linear_logprobs(hidden, self.weight, self.bias, labels, **settings)
        assert weights is not None
        assert denominator is not None
        if self.kind == "liger":
            return _liger_loss(hidden, self.weight, self.bias, labels, weights, denominator)
        return linear_cross_entropy(hidden, self.weight, self.bias, labels, weights, denominator)

    def _logits(self, hidden: Tensor) -> Tensor:
        rows = hidden.numel() // hidden.shape[-1]
        if hidden.device.type == "cpu" and rows <= FEW_ROWS and not torch.is_grad_enabled():
            flat = (self.weight @ hidden.reshape(rows, -1).T).T  # twice as quick as the same product the other way
            flat = flat if self.bias is None else flat + self.bias
            return flat.reshape(*hidden.shape[:-1], -1)
        return super().forward(hidden)


def install_head(model: Any, kind: HeadKind) -> None:
    """Lets the head of a causal LM compute its own loss; the whole-logits way needs nothing.

    Raises: ModelError when the head is not one linear layer, or Liger is asked for and missing.
    """
    if kind == "whole":
        return
    head = model.get_output_embeddings()
    if type(head) not in (nn.Linear, LanguageModelHead):
        raise ModelError(
            f"the head is a {type(head).__name__}, whose loss cannot be taken in chunks",
            where="model.head",
            expected="one linear layer",
            fix="set model.head=whole (it holds all logits at once), or take the head out of model.lora.targets",
        )
    if kind == "liger":
        _require_liger()
    head.__class__ = LanguageModelHead  # the same weights, names and hooks
    vars(head)["kind"] = kind


def _require_liger() -> None:
    require_packages("liger_kernel", extra="gpu", needed_by="model.head=liger", where="model.head")
    if not torch.cuda.is_available():
        raise ModelError("model.head=liger needs a GPU", where="model.head", fix="set model.head=chunked")


def _liger_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor, denominator: Tensor
) -> CrossEntropy:
    """Liger's fused kernel, once for each distinct token weight: its sums cannot be weighted token by token.

    Not measured here. Its per-token output has no correct backward, so losses a token come from sums of one weight:
    `nll` holds the mean of the tokens that share a weight.
    """
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    total = hidden.new_zeros((), dtype=torch.float32)
    nll = torch.zeros(len(labels), dtype=torch.float32, device=hidden.device)
    for value in weights.unique().tolist():
        where = (weights == value).nonzero().squeeze(1)
        part = liger_fused_linear_cross_entropy(hidden[where], weight, labels[where], bias=bias, reduction="sum")
        part = part[0] if isinstance(part, tuple) else part
        total = total + part.float() * value
        nll[where] = part.detach().float() / len(where)
    return CrossEntropy(total / denominator, nll)
