"""The last answers to every prompt, kept to be the drafts of the next ones (rollout.reuse).

All ranks know which rank holds a draft. Its probabilities stay where the answer was drawn, and it is verified there: no
rank holds or sends those of another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf.engine.ranks import Ranks
from rlhf.rollout.drafts import AnswerDraft


class DraftKey(NamedTuple):
    """The row of a prompt, and which of the step's answers to it."""

    row: int
    number: int


class Place(NamedTuple):
    """The rank that holds a draft, and the step that drew its answer."""

    rank: int
    step: int


@dataclass(slots=True)
class Drafts:
    """The drafts of a run; a checkpoint holds them.

    places: of the drafts of all ranks; own: those of this rank.
    """

    ranks: Ranks
    places: dict[DraftKey, Place] = field(default_factory=dict)
    own: dict[DraftKey, AnswerDraft] = field(default_factory=dict)

    def dealt(self, keys: Sequence[DraftKey], step: int) -> list[int]:
        """The rank that draws each answer: the one that holds its draft, else the one with the fewest so far.

        An answer of the same step is no draft: a prompt that comes twice in a step has two independent answers.
        """
        held = [self.places[key].rank if self._is_older(key, step) else None for key in keys]
        counts = [held.count(rank) for rank in range(self.ranks.world_size)]
        dealt = []
        for holder in held:
            rank = int(np.argmin(counts)) if holder is None else holder
            counts[rank] += holder is None
            dealt.append(rank)
        return dealt

    def draft(self, key: DraftKey, step: int) -> AnswerDraft | None:
        """The draft of this rank from an earlier step; None where there is none."""
        return self.own.get(key) if self._is_older(key, step) else None

    def keep(self, keys: Sequence[DraftKey], dealt: Sequence[int], drawn: Sequence[AnswerDraft], step: int) -> None:
        """Replaces the drafts of these keys by answers of this step; `drawn` are those of this rank, in order."""
        answers = iter(drawn)
        for key, rank in zip(keys, dealt, strict=True):
            self.places[key] = Place(rank, step)
            self.own.pop(key, None)
            if rank == self.ranks.rank:
                self.own[key] = next(answers)

    def _is_older(self, key: DraftKey, step: int) -> bool:
        return key in self.places and self.places[key].step < step

    def save(self, folder: Path) -> None:
        """Writes the drafts of this rank: one file per rank, arrays of all drafts one after the other."""
        keys, drafts = list(self.own), list(self.own.values())
        ids = [draft.ids.reshape(-1) for draft in drafts if draft.ids is not None]
        np.savez(
            folder / f"rank-{self.ranks.rank:04d}.npz",
            keys=np.asarray(keys, np.int64).reshape(-1, 2),
            steps=np.asarray([self.places[key].step for key in keys], np.int64),
            lengths=np.asarray([len(draft.tokens) for draft in drafts], np.int64),
            widths=np.asarray([draft.values.shape[1] for draft in drafts], np.int64),
            whole=np.asarray([draft.ids is None for draft in drafts], np.bool_),
            tokens=np.concatenate([np.empty(0, np.int32), *(draft.tokens for draft in drafts)]),
            values=np.concatenate([np.empty(0, np.float32), *(draft.values.reshape(-1) for draft in drafts)]),
            ids=np.concatenate(ids) if ids else np.empty(0, np.uint16),
        )

    def load(self, folder: Path) -> str:
        """Takes the drafts of a checkpoint, those of saving rank r at rank r modulo the number of ranks; none where the
        run that saved it kept none."""
        self.places, self.own = {}, {}
        for path in sorted(folder.glob("rank-*.npz")) if folder.is_dir() else []:
            saved_by = int(re.findall(r"\d+", path.name)[0])
            rank = saved_by % self.ranks.world_size
            with np.load(path) as file:
                keys = [DraftKey(row, number) for row, number in file["keys"].tolist()]
                self.places |= {key: Place(rank, step) for key, step in zip(keys, file["steps"].tolist(), strict=True)}
                if rank == self.ranks.rank:
                    self.own |= dict(zip(keys, _drafts_in(file), strict=True))
        return ""


def _drafts_in(file: Any) -> list[AnswerDraft]:
    """The drafts of a file, in the order of its keys; each has memory of its own, given back when it is replaced."""
    lengths, widths, whole = file["lengths"], file["widths"], file["whole"]
    counts = lengths * widths
    tokens = np.split(file["tokens"], np.cumsum(lengths)[:-1])
    values = np.split(file["values"], np.cumsum(counts)[:-1])
    ids = np.split(file["ids"], np.cumsum(np.where(whole, 0, counts))[:-1])
    return [
        AnswerDraft(each.copy(), value.reshape(-1, width).copy(), None if all_ids else id_.reshape(-1, width).copy())
        for each, value, id_, width, all_ids in zip(tokens, values, ids, widths, whole, strict=False)
    ]
