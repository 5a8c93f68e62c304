"""The test set of a report card, and its scores: test rankings as they are, and under every probe.

Scoring is separate from the arithmetic on scores, because in training all ranks score and one rank does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlhf.data.encode import EncodedRanking, Encoder
from rlhf.data.packing import Tree, trees_of
from rlhf.data.records import Ranking
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import ModelError
from rlhf.evaluate.reward.accuracy import ScoredRanking
from rlhf.evaluate.reward.probes import ProbeInputs, probe_inputs
from rlhf.models.scoring import divided

ScoreTrees = Callable[[Sequence[Tree]], list[list[float]]]
MAX_SWAPPED = 200


@dataclass(frozen=True, slots=True)
class TestSet:
    """Test rankings, each with an untied pair of answers that differ in tokens, and every probe of them."""

    rankings: list[Ranking]
    encoded: list[EncodedRanking]
    probes: list[ProbeInputs]
    num_without_pair: int

    @property
    def lengths(self) -> list[list[int]]:
        """Tokens of each answer."""
        return [list(map(len, item.answers)) for item in self.encoded]

    @property
    def trees(self) -> list[Tree]:
        """Everything to score: the rankings, then each probe, then the first rankings with their answers reversed."""
        probes = [tree for probe in self.probes for tree in probe.trees]
        return [*trees_of(self.encoded), *probes, *map(_reversed, trees_of(self.encoded[:MAX_SWAPPED]))]


@dataclass(frozen=True, slots=True)
class TestScores:
    """Scores of a test set: a row per ranking, for each probe a list of scores per changed row, and a row for each of
    the first rankings scored with its answers reversed and their labels swapped."""

    rows: list[ScoredRanking]
    probes: dict[str, list[list[float]]]
    swapped: list[ScoredRanking]


def build_test_set(rankings: Sequence[Ranking], tokenizer: ChatTokenizer, max_length: int) -> TestSet:
    """Renders and encodes test rankings and their probes, each sequence cut to `max_length` tokens."""
    kept = []
    for record, item in zip(rankings, Encoder(tokenizer, max_length).rankings(rankings), strict=True):
        answers = distinct_answers(item)
        if len({item.ranks[answer] for answer in answers}) > 1:
            kept.append(record_subset(record, answers))
    encoded = Encoder(tokenizer, max_length).rankings(kept)
    probes = probe_inputs(kept, encoded, tokenizer, max_length)
    return TestSet(kept, encoded, probes, len(rankings) - len(kept))


def distinct_answers(item: EncodedRanking) -> list[int]:
    """Numbers of the answers that differ in tokens; of identical answers the best-ranked is kept."""
    keep: dict[bytes, int] = {}
    for answer in sorted(range(len(item.answers)), key=lambda answer: item.ranks[answer]):
        keep.setdefault(item.answers[answer].tobytes(), answer)
    return sorted(keep.values())


def record_subset(record: Ranking, keep: Sequence[int]) -> Ranking:
    """The ranking with only these answers."""
    scores = None if record.scores is None else tuple(record.scores[answer] for answer in keep)
    return replace(
        record,
        responses=tuple(record.responses[answer] for answer in keep),
        ranks=tuple(record.ranks[answer] for answer in keep),
        scores=scores,
    )


def score_test_set(test_set: TestSet, score: ScoreTrees, *, max_tokens: int) -> TestScores:
    """Scores every tree of a test set.

    Args:
        score: scores of each tree's answers, in order; called once, so it may be a collective operation.
        max_tokens: the largest tree `score` takes; a larger one is divided by answers.

    Raises: ModelError when a score is not finite.
    """
    trees = test_set.trees
    parts = [divided(tree, max_tokens) for tree in trees]
    flat = iter(score([part for each in parts for part in each]))
    scores = [[value for _ in each for value in next(flat)] for each in parts]
    if not all(np.isfinite(each).all() for each in scores):
        raise ModelError("a score is not finite", expected="a finite number for every answer")
    count = len(test_set.encoded)
    rows = [
        ScoredRanking(item.ranks, tuple(each), item.source, prompt=item.prompt.tobytes().hex())
        for item, each in zip(test_set.encoded, scores[:count], strict=True)
    ]
    rest = iter(scores[count:])
    probes = {probe.name: [next(rest) for _ in probe.trees] for probe in test_set.probes}
    return TestScores(rows, probes, [swapped(row, found) for row, found in zip(rows, rest, strict=False)])


def _reversed(tree: Tree) -> Tree:
    prompt, answers = tree
    return prompt, answers[::-1]


def swapped(row: ScoredRanking, scores: Sequence[float]) -> ScoredRanking:
    """The ranking of `row` with its answers in reverse order, as `scores` has them, and the worst ranked best."""
    worst = max(row.ranks)
    return replace(row, ranks=tuple(worst + 1 - rank for rank in row.ranks[::-1]), scores=tuple(scores))
