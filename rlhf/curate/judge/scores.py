"""The mathematics of judging: scores weighted by probability, both orders averaged, position bias, self-agreement."""

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

    Tokens that are no score, such as a space or a word, are left out and the rest is normalised. Spellings of one
    score ("4", " 4") add up.
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
class Reading:
    """Points a criterion of the answer shown first and of the one shown second."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Sum of the first minus sum of the second, in points."""
        return sum(self.first) - sum(self.second)


def mean_reading(readings: Sequence[Reading]) -> Reading:
    """Several readings of one request as one."""
    return Reading(
        tuple(np.mean([each.first for each in readings], axis=0).tolist()),
        tuple(np.mean([each.second for each in readings], axis=0).tolist()),
    )


@dataclass(frozen=True, slots=True)
class PairScores:
    """Answers `one` and `other` of a row; `forward` shows `one` first, `backward` shows `other` first."""

    one: int
    other: int
    forward: Reading
    backward: Reading

    @property
    def verdicts(self) -> tuple[int, int]:
        """What either order says: 1 where `one` is better, -1 where `other` is, 0 for a tie."""
        return _sign(self.forward.difference), -_sign(self.backward.difference)


def _sign(value: float) -> int:
    return 0 if abs(value) < _SAME else int(math.copysign(1, value))


def pairs_of(num_answers: int, design: Pairs) -> list[tuple[int, int]]:
    """Which answers are compared: all K(K-1)/2 pairs, or a ring of K in which each answer meets two others."""
    if design == "ring" and num_answers > 3:
        return [*((index, index + 1) for index in range(num_answers - 1)), (0, num_answers - 1)]
    return [(one, other) for one in range(num_answers) for other in range(one + 1, num_answers)]


def answer_scores(num_answers: int, comparisons: Sequence[PairScores]) -> list[list[float]]:
    """[K][C]: points of each answer a criterion, the mean over everything it was shown in.

    Each comparison holds both orders, so an answer is as often first as second.
    """
    seen: list[list[tuple[float, ...]]] = [[] for _ in range(num_answers)]
    for each in comparisons:
        seen[each.one] += [each.forward.first, each.backward.second]
        seen[each.other] += [each.forward.second, each.backward.first]
    return [np.mean(readings, axis=0).tolist() for readings in seen]


@dataclass(slots=True)
class JudgeStatistics:
    """How far a judge looks at the place of an answer, over all comparisons added."""

    names: tuple[str, ...]
    biases: list[float] = field(default_factory=list)  # points, one a comparison
    by_criterion: list[tuple[float, ...]] = field(default_factory=list)
    first_won: int = 0
    second_won: int = 0
    ties: int = 0
    agreed: int = 0
    contradicted: int = 0

    def add(self, comparison: PairScores) -> None:
        """Counts one pair in both orders. What the answers are worth cancels out of its bias."""
        readings = (comparison.forward, comparison.backward)
        self.biases.append(sum(each.difference for each in readings) / 2)
        gaps = [np.subtract(each.first, each.second) for each in readings]
        self.by_criterion.append(tuple((np.sum(gaps, axis=0) / 2).tolist()))
        for each in readings:
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
        spread = float(np.std(self.biases, ddof=1)) / math.sqrt(count) if count > 1 else None
        gaps = np.mean(self.by_criterion, axis=0).tolist()
        return {
            "pairs_in_both_orders": count,
            "first_minus_second": round(float(np.mean(self.biases)), 4),
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
