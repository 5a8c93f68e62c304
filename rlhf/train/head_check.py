"""Checks the chunked loss against the model's own logits, which some architectures scale or cap."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from torch import Tensor

from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow, pack_sequences
from rlhf.errors import ModelError
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.ops.logprobs import token_logprobs

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2, "float16": 0.05}  # nats
NUM_CHECKED = 8


class Policy(Protocol):
    """A causal LM with logits, and log-probabilities computed in chunks."""

    @property
    def dtype(self) -> str: ...
    def infer(self, row: PackedRow) -> Tensor: ...
    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs: ...


def check_head(policy: Policy, item: EncodedSequence) -> None:
    """Compares log-probabilities of both on a few tokens; must be called by all ranks.

    Raises: ModelError when they differ.
    """
    row = pack_sequences([item])
    few = slice(0, NUM_CHECKED)
    row = replace(row, positions=row.positions[few], labels=row.labels[few], weights=row.weights[few])
    logits = policy.infer(row)
    expected = token_logprobs(logits, row.labels.to(logits.device))
    if not expected.isfinite().all():  # the first step raises for it
        return
    difference = float((policy.infer_logprobs(row, 1.0).logprobs - expected).abs().max())
    if not difference <= TOLERANCE[policy.dtype]:
        raise ModelError(
            f"the head's log-probabilities differ from those of the model's own logits by {difference:.3g} nats",
            where="model.head",
            expected="the same: this architecture changes its logits after the linear layer",
            fix="set model.head=whole",
        )
