"""How well scores agree with rankings: pairwise accuracy with its interval, by source and by rank gap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Judged:
    """One ranking with a score an answer: ranks 1 best, equal = tie; scores in reward units."""

    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    source: str = ""

    def pairs(self, *, neighbours: bool = False) -> list[float]:
        """1, 0 or .5 (equal scores) for each untied pair; `neighbours` keeps pairs of adjoining ranks."""
        order = sorted(set(self.ranks))
        outcomes = []
        for first, second in combinations(range(len(self.ranks)), 2):
            better, worse = sorted((first, second), key=lambda answer: self.ranks[answer])
            gap = order.index(self.ranks[worse]) - order.index(self.ranks[better])
            if gap == 0 or (neighbours and gap > 1):
                continue
            difference = self.scores[better] - self.scores[worse]
            outcomes.append(0.5 if difference == 0 else float(difference > 0))
        return outcomes


def accuracy(rows: Sequence[Judged], *, neighbours: bool = False) -> dict[str, float]:
    """Pairwise accuracy over all pairs, with a 95 % interval by bootstrap over prompts.

    Pairs of one prompt are not independent, so whole prompts are drawn.
    """
    outcomes = [row.pairs(neighbours=neighbours) for row in rows]
    counts = np.array([len(each) for each in outcomes], dtype=float)
    wins = np.array([sum(each) for each in outcomes])
    if counts.sum() == 0:
        return {"accuracy": float("nan"), "low": float("nan"), "high": float("nan"), "num_pairs": 0}
    drawn = np.random.default_rng(0).integers(0, len(rows), (BOOTSTRAP_DRAWS, len(rows)))
    totals = counts[drawn].sum(1)
    shares = wins[drawn].sum(1)[totals > 0] / totals[totals > 0]
    low, high = np.percentile(shares, [2.5, 97.5])
    return {
        "accuracy": float(wins.sum() / counts.sum()),
        "low": float(low),
        "high": float(high),
        "num_pairs": int(counts.sum()),
    }


def report_card(rows: Sequence[Judged], lengths: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Accuracy, overall, among neighbouring ranks and by source, beside what answer length alone achieves.

    Args:
        rows: rankings with the model's scores.
        lengths: tokens of each answer, in the order of `rows`.
    """
    by_source: dict[str, list[Judged]] = defaultdict(list)
    for row in rows:
        by_source[row.source].append(row)
    longer = [Judged(row.ranks, tuple(map(float, each)), row.source) for row, each in zip(rows, lengths, strict=True)]
    return {
        "num_rankings": len(rows),
        **accuracy(rows),
        "neighbours": accuracy(rows, neighbours=True),
        "by_source": {name: accuracy(each) for name, each in sorted(by_source.items())},
        "longer_answer": accuracy(longer),
    }
