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
class PairScores:
    """Points [2 orders, 2 answers, C criteria] of answers `one` and `other` of a row, as shown.

    The first order shows `one` first, the second `other`.
    """

    one: int
    other: int
    points: np.ndarray

    @property
    def verdicts(self) -> tuple[int, int]:
        """The verdict in each order: 1 where `one` is better, -1 where `other` is, 0 for a tie."""
        forward, backward = _winners(self.points).tolist()
        return forward, -backward


def _winners(points: np.ndarray) -> np.ndarray:
    """[...] of points [..., 2, C]: 1 where the answer shown first has the higher sum, -1 where the second has it."""
    gaps = (points[..., 0, :] - points[..., 1, :]).sum(-1)
    return np.where(abs(gaps) < _SAME, 0, np.sign(gaps)).astype(int)


def pairs_of(num_answers: int, design: Pairs) -> list[tuple[int, int]]:
    """The pairs to compare: all K(K-1)/2, or a ring of K pairs in which each answer meets two others."""
    if design == "ring" and num_answers > 3:
        return [*((index, index + 1) for index in range(num_answers - 1)), (0, num_answers - 1)]
    return [(one, other) for one in range(num_answers) for other in range(one + 1, num_answers)]


def answer_scores(num_answers: int, comparisons: Sequence[PairScores]) -> list[list[float]]:
    """[K][C] points of each answer per criterion, the mean over all its comparisons.

    Each comparison holds both orders, so every answer is shown first as often as second.
    """
    seen: list[list[np.ndarray]] = [[] for _ in range(num_answers)]
    for each in comparisons:
        seen[each.one] += [each.points[0, 0], each.points[1, 1]]
        seen[each.other] += [each.points[0, 1], each.points[1, 0]]
    return [np.mean(scores, axis=0).tolist() for scores in seen]


@dataclass(slots=True)
class JudgeReport:
    """Counts of a judge's replies, and the points of every pair, which give its position bias and self-agreement."""

    criteria: tuple[str, ...]
    pairs: list[np.ndarray] = field(default_factory=list)  # as in PairScores
    replies: int = 0
    asked_again: int = 0
    given_up: int = 0
    scores_weighted: int = 0
    scores_as_written: int = 0

    def statistics(self) -> dict[str, Any]:
        """Bias and agreement by name, rounded to 4 digits; points are sums over the criteria. Empty without pairs."""
        count = len(self.pairs)
        if not count:
            return {}
        points = np.array(self.pairs)
        biases = (points[:, :, 0] - points[:, :, 1]).mean(axis=1)  # [N, C]; the quality of the answers cancels out
        sums, winners = biases.sum(axis=1), _winners(points)
        forward, backward = winners[:, 0], -winners[:, 1]
        error = round(float(np.std(sums, ddof=1)) / math.sqrt(count), 4) if count > 1 else None
        gaps = biases.mean(axis=0).round(4).tolist()
        return {
            "pairs_in_both_orders": count,
            "first_minus_second": round(float(sums.mean()), 4),
            "first_minus_second_standard_error": error,
            "first_minus_second_by_criterion": dict(zip(self.criteria, gaps, strict=True)),
            "first_won": int((winners > 0).sum()),
            "second_won": int((winners < 0).sum()),
            "tied": int((winners == 0).sum()),
            "same_verdict_in_both_orders": round(float((forward == backward).mean()), 4),
            "opposite_verdicts": round(float((forward * backward < 0).mean()), 4),
        }

    def as_dict(self) -> dict[str, Any]:
        """The statistics and the counts, as manifests hold them."""
        return {
            **self.statistics(),
            "replies": self.replies,
            "asked_again": self.asked_again,
            "unreadable_after_all": self.given_up,
            "scores_weighted_by_probability": self.scores_weighted,
            "scores_as_written": self.scores_as_written,
        }
