"""What a reward model is asked for its card, and its answers: test rankings as they are, and under every probe.

Scoring is apart from the arithmetic on scores, because in training all ranks score together and one does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlhf.data.encode import EncodedRanking, Encoder, Ids
from rlhf.data.packing import trees_of
from rlhf.data.records import Ranking
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import ModelError
from rlhf.evaluate.reward.accuracy import ScoredRanking
from rlhf.evaluate.reward.probes import Sheet, probe_sheets

Tree = tuple[Ids, Sequence[Ids]]
Score = Callable[[Sequence[Tree]], list[list[float]]]


@dataclass(frozen=True, slots=True)
class TestSet:
    """Test rankings, each with at least one untied pair of answers that differ in tokens, and the probes of them."""

    rankings: list[Ranking]
    encoded: list[EncodedRanking]
    sheets: list[Sheet]
    num_without_pair: int

    @property
    def lengths(self) -> list[list[int]]:
        """Tokens of each answer."""
        return [list(map(len, item.answers)) for item in self.encoded]

    @property
    def trees(self) -> list[Tree]:
        """All that is scored: the rankings, then each probe's sheet."""
        return [*trees_of(self.encoded), *(tree for sheet in self.sheets for tree in sheet.trees)]


@dataclass(frozen=True, slots=True)
class TestScores:
    """Scores of an exam: a row a ranking, and for each probe a list a changed row."""

    rows: list[ScoredRanking]
    probes: dict[str, list[list[float]]]


def set_exam(rankings: Sequence[Ranking], tokenizer: ChatTokenizer, max_length: int) -> TestSet:
    """Renders and encodes test rankings and their probes, each sequence cut to `max_length` tokens."""
    kept = []
    for record, item in zip(rankings, Encoder(tokenizer, max_length).rankings(rankings), strict=True):
        answers = distinct_answers(item)
        if len({item.ranks[answer] for answer in answers}) > 1:
            kept.append(record_subset(record, answers))
    encoded = Encoder(tokenizer, max_length).rankings(kept)
    sheets = probe_sheets(kept, encoded, tokenizer, max_length)
    return TestSet(kept, encoded, sheets, len(rankings) - len(kept))


def distinct_answers(item: EncodedRanking) -> list[int]:
    """Numbers of the answers whose tokens no other has; of some alike the best-ranked stands."""
    keep: dict[bytes, int] = {}
    for answer in sorted(range(len(item.answers)), key=lambda answer: item.ranks[answer]):
        keep.setdefault(item.answers[answer].tobytes(), answer)
    return sorted(keep.values())


def record_subset(record: Ranking, keep: Sequence[int]) -> Ranking:
    """The ranking with these answers alone."""
    scores = None if record.scores is None else tuple(record.scores[answer] for answer in keep)
    return replace(
        record,
        responses=tuple(record.responses[answer] for answer in keep),
        ranks=tuple(record.ranks[answer] for answer in keep),
        scores=scores,
    )


def sit(exam: TestSet, score: Score, *, max_tokens: int) -> TestScores:
    """Scores everything of an exam.

    Args:
        score: scores of each tree's answers, in order; called once, so it may be a collective operation.
        max_tokens: the largest tree `score` takes; answers of a larger one are asked in several trees.

    Raises: ModelError when a score is not finite.
    """
    trees = exam.trees
    parts = [divided(tree, max_tokens) for tree in trees]
    flat = iter(score([part for each in parts for part in each]))
    scores = [[value for _ in each for value in next(flat)] for each in parts]
    if not all(np.isfinite(each).all() for each in scores):
        raise ModelError("a score is not finite", expected="a finite number for every answer")
    count = len(exam.encoded)
    rows = [
        ScoredRanking(item.ranks, tuple(each), item.source, prompt=item.prompt.tobytes().hex())
        for item, each in zip(exam.encoded, scores[:count], strict=True)
    ]
    rest = iter(scores[count:])
    return TestScores(rows, {sheet.name: [next(rest) for _ in sheet.trees] for sheet in exam.sheets})


def divided(tree: Tree, max_tokens: int) -> list[Tree]:
    """The tree as trees of at most `max_tokens`, or of one answer: answers never read each other, so none changes."""
    prompt, answers = tree
    parts: list[list[Ids]] = [[]]
    room = max_tokens - len(prompt)
    for answer in answers:
        if parts[-1] and sum(map(len, parts[-1])) + len(answer) > room:
            parts.append([])
        parts[-1].append(answer)
    return [(prompt, part) for part in parts]
