"""A prompt and its answer, and tables of numbers per response token.

Ranks share the work and then exchange the results: every rank holds the numbers of all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.data.encode import EncodedPrompt, EncodedSequence, Ids
from rlhf.data.packing import PackedRow, pack_sequences
from rlhf.engine.ranks import Ranks
from rlhf.rollout.base import Floats
from rlhf.train.run.sharing import read_shared


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and its answer. Arrays hold one number per response token, the sampled EOS included.

    old_logprobs, reference_logprobs in nats; score, values, advantages and returns in reward units.
    """

    prompt: EncodedPrompt
    response: Ids
    finished: bool
    old_logprobs: Floats
    score: float = 0.0
    reference_logprobs: Floats | None = None
    values: Floats | None = None
    advantages: Floats | None = None
    returns: Floats | None = None

    @property
    def sequence(self) -> EncodedSequence:
        """Prompt and response as one sequence, of which the response counts."""
        ids = np.concatenate([self.prompt.ids, self.response])
        return EncodedSequence(ids, np.arange(len(ids)) >= len(self.prompt.ids), self.prompt.source)


def response_mask(samples: Sequence[Sample]) -> Tensor:
    """[B, T] bool, True = response token of the sample, left-aligned."""
    lengths = torch.tensor([len(sample.response) for sample in samples])
    return torch.arange(int(lengths.max()))[None, :] < lengths[:, None]


def padded(rows: Sequence[Floats], mask: Tensor) -> Tensor:
    """Arrays of different lengths as a [B, T] table, 0 outside the mask."""
    table = torch.zeros(mask.shape)
    table[mask] = torch.from_numpy(np.concatenate(rows))
    return table


def read_table(
    samples: Sequence[Sample], mask: Tensor, ranks: Ranks, micro_tokens: int, read: Callable[[PackedRow], Tensor]
) -> Tensor:
    """What `read` says of each response token, [B, T]; packed rows of all samples are shared among ranks."""
    sequences = [sample.sequence for sample in samples]

    def read_items(items: list[int]) -> Iterator[Floats]:
        numbers = read(pack_sequences([sequences[item] for item in items])).float().cpu()
        lengths = [len(samples[item].response) for item in items]
        return (part.numpy() for part in numbers.split(lengths or 1))

    return padded(read_shared([len(each) for each in sequences], micro_tokens, ranks, read_items), mask)


def with_tables(samples: Sequence[Sample], mask: Tensor, **tables: Tensor | None) -> list[Sample]:
    """The samples with the rows of [B, T] tables in the fields of those names; None clears a field."""

    def numbers_of(row: int) -> dict[str, Any]:
        return {name: None if table is None else table[row][mask[row]].numpy() for name, table in tables.items()}

    return [replace(sample, **numbers_of(row)) for row, sample in enumerate(samples)]
