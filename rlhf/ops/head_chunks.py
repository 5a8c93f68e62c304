"""Shared by operations on chunks of a head's logits: the size of a chunk, its softmax and its gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**27}  # entries: 16 MiB fit a CPU's cache; a GPU needs larger products


def rows_per_chunk(weight: Tensor, logits: int | None) -> int:
    """Number of tokens whose logits are held at once: `logits` entries, or the default of the weight's device."""
    return max(1, (logits or CHUNK_LOGITS.get(weight.device.type, CHUNK_LOGITS["cpu"])) // weight.shape[0])


def softmax_in_place(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities in the memory of float32 logits [n, V], and log-sum-exp [n].

    log-sum-exp is the largest logit less the logarithm of its probability, which is at least 1 / V and so never
    underflows. One kernel for the softmax reads and writes each row once, where its parts would do so four times.
    """
    largest = logits.amax(-1)
    torch.softmax(logits, -1, out=logits)
    return logits, largest - logits.amax(-1).log()


class HeadGradients(NamedTuple):
    """Gradients of hidden states [N, D], and in float32 of weight [V, D] and bias [V]; None where not needed."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def empty(cls, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, ...]) -> HeadGradients:
        """Memory for the gradients that are `wanted`, in the order of the arguments."""
        return cls(
            torch.empty_like(hidden) if wanted[0] else None,
            torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None,
            torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None,
        )

    def add(self, part: slice, of_logits: Tensor, hidden: Tensor, weight: Tensor) -> None:
        """Adds the part of each gradient that comes from the gradient of the logits of `part` [n, V] float32."""
        narrow = of_logits.to(hidden.dtype)
        if self.hidden is not None:
            torch.mm(narrow, weight, out=self.hidden[part])
        if self.weight is not None:
            if narrow.dtype == torch.float32:
                self.weight.addmm_(narrow.T, hidden[part])
            else:
                self.weight.add_(narrow.T @ hidden[part])
        if self.bias is not None:
            self.bias.add_(of_logits.sum(0))

    def narrowed(self, weight: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients in the dtype of the head, as autograd expects."""
        of_weight = None if self.weight is None else self.weight.to(weight.dtype)
        return self.hidden, of_weight, None if self.bias is None else self.bias.to(weight.dtype)
