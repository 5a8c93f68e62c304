"""Text that comes with the package, on which two copies of a model are compared without any of the user's data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlhf.data.embedded import data_path
from rlhf.data.encode import EncodedSequence, Encoder
from rlhf.data.packing import PackedRow, pack_sequences
from rlhf.data.records import Demonstration, Message, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.models.loading import PackedModel, PackedScalarModel

SOURCE = "demo:handwritten_dev"
NUM_TOKENS = 400  # at least; enough positions for a wrong layer to show, few enough for a large model on a CPU
MIN_SEQUENCES = 8
MAX_LENGTH = 256


@dataclass(frozen=True, slots=True)
class FixedTextOutputs:
    """Conversations as ids, and what the model gives on them.

    outputs: causal LM, logits [P, V] before every token but the first of each conversation; one-number model,
    scores [S] at each conversation's end.
    """

    sequences: tuple[tuple[int, ...], ...]
    outputs: Tensor

    def first_seen(self) -> Tensor:
        """Which of the P positions of a causal LM have a context that no earlier one has, bool [P].

        Conversations share the template's opening and their prompts; one near-tie there must not count many times.
        """
        seen: set[tuple[int, ...]] = set()
        fresh = []
        for ids in self.sequences:
            for end in range(1, len(ids)):
                fresh.append(ids[:end] not in seen)
                seen.add(ids[:end])
        return torch.tensor(fresh)

    def save(self, path: Path) -> None:
        torch.save({"sequences": self.sequences, "outputs": self.outputs}, path)

    @classmethod
    def load(cls, path: Path) -> FixedTextOutputs:
        return cls(**torch.load(path))


def fixed_sequences(tokenizer: ChatTokenizer, max_length: int) -> tuple[tuple[int, ...], ...]:
    """Embedded prompts with their best and worst answers through the tokenizer's template, NUM_TOKENS or more."""
    rankings = read_records(DataSource(data_path(SOURCE)), Ranking).records
    encoder = Encoder(tokenizer, min(MAX_LENGTH, max_length))
    sequences: list[tuple[int, ...]] = []
    for ranking in rankings:
        for answer in (ranking.responses[0], ranking.responses[-1]):
            whole = Demonstration((*ranking.prompt, Message("assistant", answer)))
            sequences.append(tuple(encoder.demonstrations([whole])[0].ids.tolist()))
        if len(sequences) >= MIN_SEQUENCES and sum(map(len, sequences)) >= NUM_TOKENS:
            break
    return tuple(sequences)


def fixed_row(sequences: Sequence[Sequence[int]], *, scalar: bool) -> PackedRow:
    """The sequences in one row, read before every token but the first of each, or at each end where `scalar`."""
    encoded = [EncodedSequence(np.asarray(ids, dtype=np.int32), np.ones(len(ids), dtype=bool)) for ids in sequences]
    row = pack_sequences(encoded)
    if not scalar:
        return row
    return replace(row, positions=torch.tensor([len(ids) for ids in sequences]).cumsum(0) - 1)


@torch.no_grad()
def packed_outputs(model: PackedModel, sequences: Sequence[Sequence[int]]) -> Tensor:
    """The outputs of `FixedTextOutputs` by one packed row, float32 on the CPU."""
    row = fixed_row(sequences, scalar=isinstance(model, PackedScalarModel)).to(next(model.parameters()).device)
    return model.eval()(row.input_ids, row.position_ids, row.segments, row.positions).float().cpu()
