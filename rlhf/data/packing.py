"""Batches as packed rows: the global batch is chosen first, then divided evenly among the ranks.

A micro-batch is one row of at most `micro_tokens` tokens. All ranks run the same number of rows, because ZeRO-3
gathers weights inside each; a rank without work runs a row of one token with loss weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.data.encode import EncodedRanking, EncodedSequence, Ids
from rlhf.data.transfer import moved_together
from rlhf.errors import DataError
from rlhf.ops.segments import Segment, Segments

Plan = list[list[list[int]]]
ROW_TENSORS = ("input_ids", "position_ids", "positions", "labels", "weights", "items")


def plan_micro_batches(lengths: Sequence[int], micro_tokens: int, num_ranks: int) -> Plan:
    """Assigns items to micro-batches of ranks: plan[rank][micro] = item numbers.

    The longest item goes first, into the emptiest micro-batch, so loads are even. The plan depends on the arguments
    only, so every rank computes the same plan.

    Raises: DataError when an item alone exceeds `micro_tokens`.
    """
    if lengths and max(lengths) > micro_tokens:
        raise DataError(
            f"an item of {max(lengths)} tokens does not fit into train.micro_tokens = {micro_tokens}",
            fix="raise train.micro_tokens, or lower data.max_length (stage 2: data.max_answers)",
        )
    order = sorted(range(len(lengths)), key=lambda item: (-lengths[item], item))
    rows = max(1, math.ceil(sum(lengths) / micro_tokens / num_ranks)) * num_ranks
    while (bins := _fill(order, lengths, rows, micro_tokens)) is None:
        rows += num_ranks
    return [[sorted(items) for items in bins[rank::num_ranks]] for rank in range(num_ranks)]


def _fill(order: list[int], lengths: Sequence[int], rows: int, capacity: int) -> list[list[int]] | None:
    loads, bins = [0] * rows, [[] for _ in range(rows)]  # type: tuple[list[int], list[list[int]]]
    for item in order:
        emptiest = loads.index(min(loads))
        if loads[emptiest] + lengths[item] > capacity:
            return None
        loads[emptiest] += lengths[item]
        bins[emptiest].append(item)
    return bins


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One forward pass. T tokens, P read positions.

    input_ids, position_ids [1, T] int64; positions [P] int64 indices into the row where the model's output
    is read; labels [P] int64, the token that follows (causal LM) or unused; weights [P] float32, 0 = no loss;
    items [P] int64, the number (within the micro-batch's items) each position belongs to. `carried` holds further
    tensors that a step reads beside the model's output, by name: they go to the device in the row's own transfer.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: Segments
    positions: Tensor
    labels: Tensor
    weights: Tensor
    items: Tensor
    carried: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]

    def carrying(self, **tensors: Tensor) -> PackedRow:
        """The row with these tensors, on the row's device, among those it carries."""
        return replace(self, carried={**self.carried, **tensors})

    def to(self, device: torch.device) -> PackedRow:
        """The row on `device`, by one copy; a row that is there is returned as it is."""
        if self.input_ids.device.type == device.type:
            return self
        own = {name: getattr(self, name) for name in ROW_TENSORS}
        moved: dict[str, Any] = moved_together({**own, **self.carried}, device)  # type: ignore[assignment]
        carried = {name: moved.pop(name) for name in self.carried}
        return replace(self, carried=carried, **moved)


def idle_row() -> PackedRow:
    """One token with loss weight 0, which keeps the collectives matched on a rank without work."""
    zero = torch.zeros(1, dtype=torch.int64)
    return PackedRow(zero[None], zero[None], Segments.of_lengths([1]), zero, zero, torch.zeros(1), torch.full((1,), -1))


def pack_sequences(sequences: Sequence[EncodedSequence], *, prompt_weight: float = 0.0) -> PackedRow:
    """Sequences one after another; outputs are read at the position before each token with a loss."""
    if not sequences:
        return idle_row()
    weights = [np.where(sequence.answer_mask, 1.0, prompt_weight) for sequence in sequences]
    for weight, sequence in zip(weights, sequences, strict=True):
        weight[0] = 0.0  # nothing precedes the first token
        if sequence.unlearnt is not None:
            weight[sequence.unlearnt] = 0.0
    read = [np.flatnonzero(weight) for weight in weights]  # token t is predicted at t - 1; t = 0 never is
    starts = np.cumsum([0, *map(len, sequences)])[:-1]
    positions = np.concatenate([start + where - 1 for start, where in zip(starts, read, strict=True)])
    ids = np.concatenate([sequence.ids for sequence in sequences])
    return PackedRow(
        input_ids=_long(ids)[None],
        position_ids=_long(np.concatenate([np.arange(len(sequence)) for sequence in sequences]))[None],
        segments=Segments.of_lengths([len(sequence) for sequence in sequences]),
        positions=_long(positions),
        labels=_long(ids[positions + 1]),
        weights=torch.from_numpy(
            np.concatenate([weight[where] for weight, where in zip(weights, read, strict=True)])
        ).float(),
        items=_long(np.concatenate([np.full(len(where), item) for item, where in enumerate(read)])),
    )


def pack_trees(trees: Sequence[tuple[Ids, Sequence[Ids]]]) -> PackedRow:
    """Prompts with K answers each: every prompt once, followed by its answers; outputs are read at the end of answers.

    `items` numbers the answers through the row: first those of tree 0, then those of tree 1.
    """
    if not trees:
        return idle_row()
    ids, places, spans, ends = [], [], [], []
    start = 0
    for prompt, answers in trees:
        prefix = Segment(start, start + len(prompt))
        spans.append(prefix)
        ids.append(prompt)
        places.append(np.arange(len(prompt)))
        start = prefix.end
        for answer in answers:
            spans.append(Segment(start, start + len(answer), prefix.start, prefix.end))
            ids.append(answer)
            places.append(np.arange(len(prompt), len(prompt) + len(answer)))
            start += len(answer)
            ends.append(start - 1)
    count = len(ends)
    return PackedRow(
        input_ids=_long(np.concatenate(ids))[None],
        position_ids=_long(np.concatenate(places))[None],
        segments=Segments(tuple(spans)),
        positions=_long(np.asarray(ends)),
        labels=torch.zeros(count, dtype=torch.int64),
        weights=torch.ones(count),
        items=torch.arange(count),
    )


def first_tokens(row: PackedRow, most: int) -> PackedRow:
    """At most the first `most` tokens of a row, read at every one of them; each computes what it does in the whole row.

    It is for comparing outputs: labels and loss weights are 0, items -1.
    """
    count = min(most, row.num_tokens)
    kept = [replace(span, end=min(span.end, count)) for span in row.segments.spans if span.start < count]
    none = torch.zeros(count, dtype=torch.int64)
    return PackedRow(
        input_ids=row.input_ids[:, :count],
        position_ids=row.position_ids[:, :count],
        segments=Segments(tuple(kept)),
        positions=torch.arange(count),
        labels=none,
        weights=torch.zeros(count),
        items=none - 1,
    )


def trees_of(rankings: Sequence[EncodedRanking]) -> list[tuple[Ids, Sequence[Ids]]]:
    return [(ranking.prompt, ranking.answers) for ranking in rankings]


def _long(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).long()
