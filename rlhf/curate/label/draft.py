"""A person's work on one row: the placed answers, an edited answer, a comment, and the resulting ranks."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictInt, TypeAdapter
from pydantic.dataclasses import dataclass

from rlhf.curate.label.items import LabelItem
from rlhf.errors import DataError

Verdict = Literal["ranked", "tie", "bad", "skip"]
MAX_EDIT_CHARACTERS = 20_000
MAX_COMMENT_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Draft:
    """The state of a row on a person's page; answers are numbered from 0 in the order shown to that person.

    `tiers` go from best to worst; answers of one tier tie. `edit_text` is a better version of answer `edit_of`.
    """

    tiers: tuple[tuple[StrictInt, ...], ...] = ()
    edit_of: StrictInt | None = None
    edit_text: Annotated[str, Field(strict=True, max_length=MAX_EDIT_CHARACTERS)] = ""
    comment: Annotated[str, Field(strict=True, max_length=MAX_COMMENT_CHARACTERS)] = ""

    def check(self, num_answers: int, verdict: Verdict | None = None) -> None:
        """Raises DataError unless every answer is placed at most once, and exactly once for a ranking."""
        placed = [answer for tier in self.tiers for answer in tier]
        if len(placed) != len(set(placed)) or not all(self.tiers):
            raise DataError(f"tiers {self.tiers}", expected="each answer in one tier, no tier empty")
        named = placed if self.edit_of is None else [*placed, self.edit_of]
        if any(not 0 <= answer < num_answers for answer in named):
            raise DataError(f"answers {named}", expected=f"numbers from 0 to {num_answers - 1}")
        if verdict == "ranked" and len(placed) != num_answers:
            raise DataError(f"{len(placed)} of {num_answers} answers are placed", expected="all of them")


DRAFT = TypeAdapter(Draft)  # to and from the JSON of the store


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """A submitted row; answers are numbered as in the file, rank 1 is the best.

    Equal ranks tie, and a tie of two at rank 1 is followed by rank 3. "tie", "bad" and "skip" rank all answers 1.
    `edit` is "" or a text that the person considers better than every answer, written from answer `edit_of`.
    """

    item: LabelItem
    annotator: str
    verdict: Verdict
    ranks: tuple[int, ...]
    edit: str = ""
    edit_of: int | None = None
    comment: str = ""


def judgement_of(item: LabelItem, annotator: str, verdict: Verdict, draft: Draft, shown: tuple[int, ...]) -> Judgement:
    """Converts places on the page to answers of the file; `shown[place]` is the answer shown there."""
    ranks = [1] * len(shown)
    if verdict == "ranked":
        better = 0
        for tier in draft.tiers:
            for place in tier:
                ranks[shown[place]] = better + 1
            better += len(tier)
    text = draft.edit_text.strip()
    if draft.edit_of is None or not text or text in item.responses:
        return Judgement(item, annotator, verdict, tuple(ranks), comment=draft.comment.strip())
    return Judgement(item, annotator, verdict, tuple(ranks), text, shown[draft.edit_of], draft.comment.strip())
