"""The last answers to every prompt, kept to be the drafts of the next ones (rollout.reuse).

All ranks know which rank holds a draft. Its probabilities stay where the answer was drawn, and it is verified there: no
rank holds or sends those of another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf.engine.ranks import Ranks
from rlhf.rollout.drafts import AnswerDraft

FILE_DRAFTS = 256


class DraftKey(NamedTuple):
    """The row of a prompt, and which of the step's answers to it."""

    row: int
    number: int


@dataclass(slots=True)
class Drafts:
    """The drafts of a run; a checkpoint holds them.

    places: the rank that holds each draft, over all ranks; own: those of this rank; drawn: rank and answer
    (None: another rank's) of the iteration that is not complete yet, which are no drafts before it is.
    """

    ranks: Ranks
    places: dict[DraftKey, int] = field(default_factory=dict)
    own: dict[DraftKey, AnswerDraft] = field(default_factory=dict)
    drawn: dict[DraftKey, tuple[int, AnswerDraft | None]] = field(default_factory=dict)

    def dealt(self, keys: Sequence[DraftKey]) -> list[int]:
        """The rank that draws each answer: the one that holds its draft, else the one with the fewest so far.

        An answer of the same iteration is no draft: a prompt that comes twice has two independent answers.
        """
        held = [None if key in self.drawn else self.places.get(key) for key in keys]
        counts = [held.count(rank) for rank in range(self.ranks.world_size)]
        dealt = []
        for holder in held:
            rank = int(np.argmin(counts)) if holder is None else holder
            counts[rank] += holder is None
            dealt.append(rank)
        return dealt

    def draft(self, key: DraftKey) -> AnswerDraft | None:
        """The draft of this rank from an earlier iteration; None where there is none."""
        return None if key in self.drawn else self.own.get(key)

    def keep(self, keys: Sequence[DraftKey], dealt: Sequence[int], drawn: Sequence[AnswerDraft]) -> None:
        """Answers that are the drafts of these keys from `commit` on; `drawn` are those of this rank, in order."""
        answers = iter(drawn)
        for key, rank in zip(keys, dealt, strict=True):
            self.drawn[key] = (rank, next(answers) if rank == self.ranks.rank else None)

    def commit(self) -> None:
        """The iteration is complete: its answers replace the drafts of their keys."""
        for key, (rank, draft) in self.drawn.items():
            self.places[key] = rank
            self.own.pop(key, None)
            if draft is not None:
                self.own[key] = draft
        self.drawn = {}

    def save(self, folder: Path) -> None:
        """Writes the drafts of this rank, FILE_DRAFTS in each file, so that no more than those are in memory twice."""
        keys = list(self.own)
        for part, first in enumerate(range(0, max(len(keys), 1), FILE_DRAFTS)):
            path = folder / f"rank-{self.ranks.rank:04d}-{part:04d}.npz"
            _write(path, {key: self.own[key] for key in keys[first : first + FILE_DRAFTS]})

    def load(self, folder: Path) -> str:
        """Takes the drafts of a checkpoint, none where the run that saved it kept none: the same on every rank where as
        many saved it, else dealt to the ranks in turn."""
        self.places, self.own, self.drawn = {}, {}, {}
        paths = sorted(folder.glob("rank-*.npz")) if folder.is_dir() else []
        saved_by = [int(re.findall(r"\d+", path.name)[0]) for path in paths]
        as_saved = len(set(saved_by)) == self.ranks.world_size
        for path, rank in zip(paths, saved_by, strict=True):
            with np.load(path) as file:
                keys = [DraftKey(row, number) for row, number in file["keys"].tolist()]
                first = len(self.places)
                takers = [rank if as_saved else (first + item) % self.ranks.world_size for item in range(len(keys))]
                self.places |= dict(zip(keys, takers, strict=True))
                wanted = [taker == self.ranks.rank for taker in takers]
                if any(wanted):
                    self.own |= dict(zip(compress(keys, wanted), _read(file, wanted), strict=True))
        return ""


def _write(path: Path, drafts: Mapping[DraftKey, AnswerDraft]) -> None:
    """One file: arrays of all drafts one after the other."""
    ids = [draft.ids.reshape(-1) for draft in drafts.values() if draft.ids is not None]
    np.savez(
        path,
        keys=np.asarray(list(drafts), np.int64).reshape(-1, 2),
        lengths=np.asarray([len(draft.tokens) for draft in drafts.values()], np.int64),
        widths=np.asarray([draft.values.shape[1] for draft in drafts.values()], np.int64),
        whole=np.asarray([draft.ids is None for draft in drafts.values()], np.bool_),
        tokens=np.concatenate([np.empty(0, np.int32), *(draft.tokens for draft in drafts.values())]),
        values=np.concatenate([np.empty(0, np.float32), *(draft.values.reshape(-1) for draft in drafts.values())]),
        ids=np.concatenate(ids) if ids else np.empty(0, np.uint16),
    )


def _read(file: Any, wanted: Sequence[bool]) -> list[AnswerDraft]:
    """The wanted drafts of a file, in its order; each has memory of its own, given back when it is replaced."""
    lengths, widths, whole = file["lengths"], file["widths"], file["whole"]
    counts = lengths * widths
    tokens = np.split(file["tokens"], np.cumsum(lengths)[:-1])
    values = np.split(file["values"], np.cumsum(counts)[:-1])
    ids = np.split(file["ids"], np.cumsum(np.where(whole, 0, counts))[:-1])
    parts = zip(wanted, tokens, values, ids, widths, whole, strict=True)
    return [
        AnswerDraft(each.copy(), value.reshape(-1, width).copy(), None if all_ids else id_.reshape(-1, width).copy())
        for is_wanted, each, value, id_, width, all_ids in parts
        if is_wanted
    ]
