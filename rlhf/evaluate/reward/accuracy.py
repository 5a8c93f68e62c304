"""Pairwise accuracy of scores against rankings, with its interval, over all pairs and over groups of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from rlhf.evaluate.intervals import SHARE, ratio_figure


class Pair(NamedTuple):
    """Two answers of one ranking, by number; gap 1 = adjoining ranks."""

    better: int
    worse: int
    gap: int


def untied_pairs(ranks: Sequence[int]) -> list[Pair]:
    """Every pair of answers of different rank (1 best)."""
    order = {rank: place for place, rank in enumerate(sorted(set(ranks)))}
    places = [order[rank] for rank in ranks]
    pairs = []
    for first, second in combinations(range(len(ranks)), 2):
        if places[first] != places[second]:
            better, worse = sorted((first, second), key=places.__getitem__)
            pairs.append(Pair(better, worse, places[worse] - places[better]))
    return pairs


def outcome(difference: float) -> float:
    """1 for a pair in the right order, 0 for a wrong one, .5 for equal scores."""
    return 0.5 if difference == 0 else float(difference > 0)


@dataclass(frozen=True, slots=True)
class ScoredRanking:
    """One ranking with a score per answer: ranks 1 best, equal = tie; scores in reward units.

    `prompt` identifies the prompt: rankings of one prompt are resampled together ("" is a prompt of its own).
    """

    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    source: str = ""
    prompt: str = ""

    def difference(self, pair: Pair) -> float:
        """Score of the better answer minus that of the worse."""
        return self.scores[pair.better] - self.scores[pair.worse]

    def pairs(self, *, neighbours: bool = False) -> list[float]:
        """1, 0 or .5 (equal scores) for each untied pair; `neighbours` keeps pairs of adjoining ranks."""
        wanted = [pair for pair in untied_pairs(self.ranks) if pair.gap == 1 or not neighbours]
        return [outcome(self.difference(pair)) for pair in wanted]


def accuracy_of(outcomes: Sequence[Sequence[float]]) -> dict[str, float]:
    """Mean outcome with its 95 % interval; entry i holds the outcomes of prompt i, which may be none."""
    counts, correct = ([float(count(each)) for each in outcomes] for count in (len, sum))
    figure = ratio_figure(np.asarray(correct), np.asarray(counts), SHARE)
    return {"accuracy": figure["mean"], "low": figure["low"], "high": figure["high"], "num_pairs": int(sum(counts))}


def accuracy(rows: Sequence[ScoredRanking], *, neighbours: bool = False) -> dict[str, float]:
    """Pairwise accuracy over all pairs, with a 95 % interval by bootstrap over prompts."""
    outcomes = [row.pairs(neighbours=neighbours) for row in rows]
    return accuracy_of([[each for row in group for each in outcomes[row]] for group in prompt_groups(rows)])


def prompt_groups(rows: Sequence[ScoredRanking]) -> list[list[int]]:
    """Row numbers by prompt."""
    groups: dict[str | int, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        groups[row.prompt or number].append(number)
    return list(groups.values())


def report_card(rows: Sequence[ScoredRanking], lengths: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Accuracy overall, among neighbouring ranks and by source, and the accuracy of answer length alone.

    Args:
        rows: rankings with the model's scores.
        lengths: tokens of each answer, in the order of `rows`.
    """
    by_source: dict[str, list[ScoredRanking]] = defaultdict(list)
    for row in rows:
        by_source[row.source].append(row)
    return {
        "num_rankings": len(rows),
        **accuracy(rows),
        "neighbours": accuracy(rows, neighbours=True),
        "by_source": {name: accuracy(each) for name, each in sorted(by_source.items())},
        "longer_answer": accuracy(rescored(rows, lengths)),
    }


def rescored(rows: Sequence[ScoredRanking], scores: Sequence[Sequence[float]]) -> list[ScoredRanking]:
    """The same rankings with other scores; lengths in tokens are the baseline that picks the longer answer."""
    return [replace(row, scores=tuple(map(float, each))) for row, each in zip(rows, scores, strict=True)]


def breakdown(rows: Sequence[ScoredRanking], lengths: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Accuracy by K, by rank gap and by quartile of the tokens of a pair's two answers."""
    pairs = [(number, row, pair) for number, row in enumerate(rows) for pair in untied_pairs(row.ranks)]
    tokens = [lengths[number][pair.better] + lengths[number][pair.worse] for number, _, pair in pairs]
    edges = np.percentile(tokens, [25, 50, 75])

    def grouped(keys: Iterable[int]) -> dict[int, dict[str, float]]:
        outcomes: dict[int, list[list[float]]] = {}
        for key, (number, row, pair) in zip(keys, pairs, strict=True):
            outcomes.setdefault(key, [[] for _ in rows])[number].append(outcome(row.difference(pair)))
        return {key: accuracy_of(outcomes[key]) for key in sorted(outcomes)}

    bounds = [float(edge) for edge in (min(tokens), *edges, max(tokens))]
    quartiles = grouped(np.searchsorted(edges, tokens).tolist())
    return {
        "by_k": {str(key): each for key, each in grouped(len(row.ranks) for _, row, _ in pairs).items()},
        "by_rank_gap": {str(key): each for key, each in grouped(pair.gap for _, _, pair in pairs).items()},
        "by_length": [
            {"min_tokens": bounds[place], "max_tokens": bounds[place + 1], **each} for place, each in quartiles.items()
        ],
    }
