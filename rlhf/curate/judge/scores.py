"""The formulas of judging: probability-weighted scores, means over both orders, position bias, self-agreement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rlhf.curate.judge.criteria import HIGHEST, LOWEST

Pairs = Literal["all", "ring"]
_SAME = 1e-9  # points; sums of floats that are equal in arithmetic


def expected_score(logprobs: Mapping[str, float]) -> float | None:
    """Mean score in points under a judge's next-token log-probabilities (nats); None where no token is a score.

    Other tokens, such as a space or a word, are ignored, and the probabilities of the scores are normalised.
    Spellings of one score ("4", " 4") add up.
    Source: arXiv:2303.16634, eq. 1.
    """
    points: dict[int, float] = {}
    for text, logprob in logprobs.items():
        stripped = text.strip()
        if len(stripped) == 1 and stripped.isdecimal() and LOWEST <= int(stripped) <= HIGHEST:
            points[int(stripped)] = points.get(int(stripped), 0.0) + math.exp(logprob)
    mass = sum(points.values())
    return sum(score * chance for score, chance in points.items()) / mass if mass > 0 else None


@dataclass(frozen=True, slots=True)
class OrderScores:
    """Points per criterion of two answers shown in one order."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Sum of the first minus sum of the second, in points."""
        return sum(self.first) - sum(self.second)


def mean_scores(replies: Sequence[OrderScores]) -> OrderScores:
    """The mean over several replies to one request."""
    first, second = np.mean([(each.first, each.second) for each in replies], axis=0).tolist()
    return OrderScores(tuple(first), tuple(second))


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores of answers `one` and `other` of a row; `forward` shows `one` first, `backward` shows `other` first."""

    one: int
    other: int
    forward: OrderScores
    backward: OrderScores

    @property
    def verdicts(self) -> tuple[int, int]:
        """The verdict in each order: 1 where `one` is better, -1 where `other` is, 0 for a tie."""
        return _sign(self.forward.difference), -_sign(self.backward.difference)


def _sign(value: float) -> int:
    return 0 if abs(value) < _SAME else int(math.copysign(1, value))


def pairs_of(num_answers: int, design: Pairs) -> list[tuple[int, int]]:
    """The pairs to compare: all K(K-1)/2, or a ring of K pairs in which each answer meets two others."""
    if design == "ring" and num_answers > 3:
        return [*((index, index + 1) for index in range(num_answers - 1)), (0, num_answers - 1)]
    return [(one, other) for one in range(num_answers) for other in range(one + 1, num_answers)]


def answer_scores(num_answers: int, comparisons: Sequence[PairScores]) -> list[list[float]]:
    """[K][C] points of each answer per criterion, the mean over all its comparisons.

    Each comparison holds both orders, so every answer is shown first as often as second.
    """
    seen: list[list[tuple[float, ...]]] = [[] for _ in range(num_answers)]
    for each in comparisons:
        seen[each.one] += [each.forward.first, each.backward.second]
        seen[each.other] += [each.forward.second, each.backward.first]
    return [np.mean(scores, axis=0).tolist() for scores in seen]


@dataclass(slots=True)
class JudgeStatistics:
    """Position bias and self-agreement of a judge, over all added comparisons.

    `biases` holds, per comparison and criterion, the points that an answer gains by being shown first.
    """

    names: tuple[str, ...]
    biases: list[list[float]] = field(default_factory=list)
    first_won: int = 0
    second_won: int = 0
    ties: int = 0
    agreed: int = 0
    contradicted: int = 0

    def add(self, comparison: PairScores) -> None:
        """Adds one pair in both orders. The quality of the answers cancels out of the bias."""
        orders = (comparison.forward, comparison.backward)
        self.biases.append(np.mean([np.subtract(each.first, each.second) for each in orders], axis=0).tolist())
        for each in orders:
            won = _sign(each.difference)
            self.first_won += won > 0
            self.second_won += won < 0
            self.ties += won == 0
        forward, backward = comparison.verdicts
        self.agreed += forward == backward
        self.contradicted += forward * backward < 0

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, rounded to 4 digits; points are sums over the criteria. Empty without comparisons."""
        count = len(self.biases)
        if not count:
            return {}
        gaps, sums = np.mean(self.biases, axis=0).tolist(), np.sum(self.biases, axis=1)
        spread = float(np.std(sums, ddof=1)) / math.sqrt(count) if count > 1 else None
        return {
            "pairs_in_both_orders": count,
            "first_minus_second": round(float(np.mean(sums)), 4),
            "first_minus_second_standard_error": None if spread is None else round(spread, 4),
            "first_minus_second_by_criterion": {
                name: round(gap, 4) for name, gap in zip(self.names, gaps, strict=True)
            },
            "first_won": self.first_won,
            "second_won": self.second_won,
            "tied": self.ties,
            "same_verdict_in_both_orders": round(self.agreed / count, 4),
            "opposite_verdicts": round(self.contradicted / count, 4),
        }
