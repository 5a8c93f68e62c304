"""The language-model head and what is asked of it: logits, log-probabilities or a loss, the latter two in chunks."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from rlhf.errors import ModelError, require_packages
from rlhf.ops.linear_cross_entropy import linear_cross_entropy
from rlhf.ops.linear_logprobs import TokenLogprobs, linear_logprobs
from rlhf.ops.logprobs import entropy, token_logprobs
from rlhf.ops.losses import CrossEntropy, cross_entropy

FEW_ROWS = 16
HeadKind = Literal["chunked", "whole", "liger"]
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Request(Protocol[Result_co]):
    """What a language model computes at the N read positions of a row.

    What it returns must be a tensor or a named tuple of tensors: ZeRO 3 gathers weights for the backward pass by hooks
    on a module's outputs, and finds no tensor inside a dataclass.
    """

    def from_head(self, head: LanguageModelHead, hidden: Tensor) -> Result_co:
        """From what the head reads, hidden [N, D]; called inside the head's `forward`."""
        ...

    def from_logits(self, logits: Tensor) -> Result_co:
        """From all logits, [N, V]."""
        ...


class LogitsRequest(NamedTuple):
    """Asks for logits."""

    def from_head(self, head: LanguageModelHead, hidden: Tensor) -> Tensor:
        """Logits [..., V] for hidden [..., D]."""
        rows = hidden.numel() // hidden.shape[-1]
        if hidden.device.type == "cpu" and rows <= FEW_ROWS and not torch.is_grad_enabled():
            flat = (head.weight @ hidden.reshape(rows, -1).T).T  # twice as fast as the same product the other way round
            flat = flat if head.bias is None else flat + head.bias
            return flat.reshape(*hidden.shape[:-1], -1)
        return nn.functional.linear(hidden, head.weight, head.bias)

    def from_logits(self, logits: Tensor) -> Tensor:
        return logits


class LogprobRequest(NamedTuple):
    """Asks for log-probabilities of labels [N] under softmax(logits / temperature), and for the entropy if wanted."""

    labels: Tensor
    temperature: float
    with_entropy: bool = False

    def from_head(self, head: LanguageModelHead, hidden: Tensor) -> TokenLogprobs:
        return linear_logprobs(
            hidden, head.weight, head.bias, self.labels, temperature=self.temperature, with_entropy=self.with_entropy
        )

    def from_logits(self, logits: Tensor) -> TokenLogprobs:
        wanted = entropy(logits, temperature=self.temperature) if self.with_entropy else logits.new_zeros(len(logits))
        return TokenLogprobs(token_logprobs(logits, self.labels, temperature=self.temperature), wanted)


class LossRequest(NamedTuple):
    """Asks for the cross-entropy of labels [N] with weights [N], divided by the global total `denominator` []."""

    labels: Tensor
    weights: Tensor
    denominator: Tensor

    def from_head(self, head: LanguageModelHead, hidden: Tensor) -> CrossEntropy:
        compute = _liger_loss if head.kind == "liger" else linear_cross_entropy
        return compute(hidden, head.weight, head.bias, self.labels, self.weights, self.denominator)

    def from_logits(self, logits: Tensor) -> CrossEntropy:
        return cross_entropy(logits, self.labels, self.weights, self.denominator)


LOGITS = LogitsRequest()


class LanguageModelHead(nn.Linear):
    """A linear head that answers requests inside its own `forward`, where ZeRO 3 has gathered the weight."""

    kind: HeadKind = "chunked"

    def forward(self, hidden: Tensor, request: Request[Result] = LOGITS) -> Result:  # type: ignore[assignment]
        return request.from_head(self, hidden)


def require_head(kind: HeadKind) -> None:
    """Raises ConfigError when Liger is asked for and missing, ModelError when there is no GPU for it."""
    if kind == "liger":
        require_packages("liger_kernel", extra="gpu", needed_by="model.head=liger", where="model.head")
        if not torch.cuda.is_available():
            raise ModelError("model.head=liger needs a GPU", where="model.head", fix="set model.head=chunked")


def install_head(model: Any, kind: HeadKind) -> None:
    """Makes the head of a causal LM compute its own loss; nothing to do for `whole`, which computes all logits.

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
    require_head(kind)
    head.__class__ = LanguageModelHead  # the same weights, names and hooks
    vars(head)["kind"] = kind


def _liger_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor, denominator: Tensor
) -> CrossEntropy:
    """Liger's fused kernel, once for each distinct token weight: its sums cannot be weighted token by token.

    Not measured here. Its per-token output has no correct backward, so per-token losses come from sums over one weight:
    `nll` holds the mean of the tokens that share a weight. The weight's gradient is summed over chunks in float32; by
    default Liger sums it in the weight's own dtype.
    """
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    total = hidden.new_zeros((), dtype=torch.float32)
    nll = torch.zeros(len(labels), dtype=torch.float32, device=hidden.device)
    for value in weights.unique().tolist():
        where = (weights == value).nonzero().squeeze(1)
        part = liger_fused_linear_cross_entropy(
            hidden[where], weight, labels[where], bias=bias, reduction="sum", accum_dtype=torch.float32
        )
        part = part[0] if isinstance(part, tuple) else part
        total = total + part.float() * value
        nll[where] = part.detach().float() / len(where)
    return CrossEntropy(total / denominator, nll)
