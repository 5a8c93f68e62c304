"""A prompt and its answer, and what a role says about each of its tokens.

Ranks share the work and then exchange the results: every rank holds the numbers of all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rlhf.data.encode import EncodedPrompt, EncodedSequence, Ids
from rlhf.data.packing import PackedRow, pack_sequences, plan_micro_batches
from rlhf.engine.ranks import Ranks
from rlhf.rollout.base import Floats

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and its answer. Arrays hold one number a response token, the sampled EOS included.

    old_logprobs, reference_logprobs in nats; values, rewards, advantages, returns and score in reward units;
    importance: what advantages are multiplied by, 1 where the actor itself drew the answer.
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
    importance: Floats | float = 1.0

    @property
    def sequence(self) -> EncodedSequence:
        """Prompt and response as one sequence whose response is read."""
        ids = np.concatenate([self.prompt.ids, self.response])
        return EncodedSequence(ids, np.arange(len(ids)) >= len(self.prompt.ids), self.prompt.source)


def map_samples(
    samples: Sequence[Sample], ranks: Ranks, micro_tokens: int, read: Callable[[PackedRow], Tensor]
) -> list[Floats]:
    """`read` over packed rows of all samples, shared among ranks; its numbers at response tokens, by sample."""
    sequences = [sample.sequence for sample in samples]
    plan = plan_micro_batches([len(each) for each in sequences], micro_tokens, ranks.world_size)
    found: dict[int, Floats] = {}
    for items in plan[ranks.rank]:
        numbers = read(pack_sequences([sequences[item] for item in items])).float().cpu().numpy()
        ends = np.cumsum([len(samples[item].response) for item in items])
        found |= dict(zip(items, np.split(numbers, ends), strict=False))  # the last part is empty
    return everywhere(ranks, found, len(samples))


def everywhere(ranks: Ranks, found: dict[int, Found], count: int) -> list[Found]:
    """What the ranks found by item number, as one list of `count` on every rank."""
    merged = {item: value for part in ranks.gather(found) for item, value in part.items()}
    return [merged[item] for item in range(count)]


def response_mask(samples: Sequence[Sample]) -> Tensor:
    """[B, T] bool, True = response token of the sample, left-aligned."""
    lengths = torch.tensor([len(sample.response) for sample in samples])
    return torch.arange(int(lengths.max()))[None, :] < lengths[:, None]


def padded(rows: Sequence[Floats], mask: Tensor) -> Tensor:
    """Ragged rows as a [B, T] table, 0 outside the mask."""
    table = torch.zeros(mask.shape)
    table[mask] = torch.from_numpy(np.concatenate(rows))
    return table
