"""Rows of preference optimisation: answers behind a shared prompt, with what their loss compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.data.encode import EncodedMarked, EncodedRanking
from rlhf.data.packing import PackedRow, Tree, pack_answers, trees_of
from rlhf.ops.preference import answer_logprobs
from rlhf.train.ranking_rows import answer_tables, score_table

Compared = EncodedRanking | EncodedMarked


@dataclass(frozen=True, slots=True)
class ReferencedRow:
    """A prompt with answers that are compared, and the reference's log-probability of each in nats.

    `other` is the prompt with an answer of another prompt, by which KTO estimates its reference point, and
    `other_reference` the log-probability of that answer; None and 0 where the loss has no such point.
    """

    item: Compared
    reference: tuple[float, ...]
    other: Tree | None = None
    other_reference: float = 0.0

    def __len__(self) -> int:
        return len(self.item)

    @property
    def best_tokens(self) -> int:
        """Tokens of the best answers: those that the SFT term imitates."""
        return sum(len(answer) for answer, best in zip(self.item.answers, best_answers(self.item), strict=True) if best)


def best_answers(item: Compared) -> list[bool]:
    """Whether each answer is a best one of its ranking; of single verdicts, whether it is good."""
    first = 1 if isinstance(item, EncodedMarked) else min(item.ranks)
    return [rank == first for rank in item.ranks]


def pack_compared(rows: Sequence[ReferencedRow]) -> PackedRow:
    """Rows as one packed row on the host, read at every token of their answers.

    It carries `answer_tables` and, [B, K] each, `references` float32 in nats, `lengths` int64 in tokens and `best`
    bool; `answers` [P] int64 is the answer each token belongs to. An idle row has one masked answer of one token.
    """
    items = [row.item for row in rows]
    row = pack_answers(trees_of(items))
    return row.carrying(answers=row.items.clamp(min=0), **compared_tables(rows))


def compared_tables(rows: Sequence[ReferencedRow]) -> dict[str, Tensor]:
    """What the losses read beside the policy's log-probabilities; see `pack_compared`."""
    items = [row.item for row in rows]
    tables = answer_tables(items)
    references = torch.zeros(tables["mask"].shape)
    lengths, best = torch.zeros_like(tables["ranks"]), torch.zeros_like(tables["mask"])
    for number, row in enumerate(rows):
        count = len(row.item.answers)
        references[number, :count] = torch.tensor(row.reference)
        lengths[number, :count] = torch.tensor([len(answer) for answer in row.item.answers])
        best[number, :count] = torch.tensor(best_answers(row.item))
    return {**tables, "references": references, "lengths": lengths, "best": best}


def logprob_table(tokens: Tensor, row: PackedRow) -> Tensor:
    """Log-probabilities of the row's tokens [P] as those of its answers [B, K], nats; 0 where there is no answer."""
    return score_table(answer_logprobs(tokens, row.carried["answers"], len(row.carried["places"])), row)
