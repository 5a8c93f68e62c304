"""Packed forward passes over many sequences in this process, on the model's device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from rlhf.data.packing import PackedRow, plan_micro_batches
from rlhf.models.loading import PackedCausalLM, PackedScalarModel

MICRO_TOKENS = 4096
Value = TypeVar("Value")


@torch.no_grad()
def forward_packed(model: PackedCausalLM | PackedScalarModel, row: PackedRow) -> Tensor:
    """The model's output for one packed row, in evaluation mode."""
    row = row.to(next(model.parameters()).device)
    return model.eval()(row.input_ids, row.position_ids, row.segments, row.positions)


def in_micro_batches(
    lengths: Sequence[int], read: Callable[[list[int]], list[Value]], micro_tokens: int = MICRO_TOKENS
) -> list[Value]:
    """A value per item, in order; `read` gets the numbers of the items of one micro-batch.

    Args:
        lengths: tokens of each item; a micro-batch holds at most `micro_tokens`, or as many as the longest item.
    """
    found: dict[int, Value] = {}
    for items in plan_micro_batches(lengths, max([micro_tokens, *lengths]), 1)[0]:
        if items:
            found |= dict(zip(items, read(items), strict=True))
    return [found[item] for item in range(len(lengths))]
