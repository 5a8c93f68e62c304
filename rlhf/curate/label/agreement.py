"""How far people agree: Krippendorff's alpha on ranks, and who wins against whom.

A unit is one answer of one row; its value is where a person put it, 0 for the best place and 1 for the last
(answers that tie share the middle of their places), so that rows of different numbers of answers can be joined.
The metric is ordinal. Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

from rlhf.curate.label.draft import Judgement

Ratings = Sequence[Sequence[float | None]]


def ordinal_alpha(ratings: Ratings) -> float | None:
    """Krippendorff's alpha of ratings[person][unit], None where a person did not rate.

    1 is full agreement, 0 is chance. None when it is not defined: no unit has two ratings, or all are equal.
    """
    import krippendorff
    import numpy

    units = [unit for unit in zip(*ratings, strict=True) if sum(value is not None for value in unit) > 1]
    if len({value for unit in units for value in unit if value is not None}) < 2:
        return None
    table = numpy.array([[numpy.nan if value is None else value for value in unit] for unit in units]).T
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal"))


def places(ranks: Sequence[int]) -> tuple[float, ...]:
    """Where each answer stands, 0 best to 1 last; ties stand in the middle of their places."""

    def place(rank: int) -> float:
        better, equal = sum(other < rank for other in ranks), sum(other == rank for other in ranks)
        return (better + (equal - 1) / 2) / (len(ranks) - 1)

    return tuple(place(rank) for rank in ranks)


def alpha_of(judgements: Sequence[Judgement]) -> float | None:
    """Alpha over all answers that two or more of these people placed; skipped rows do not count."""
    people = sorted({judgement.annotator for judgement in judgements})
    units: dict[tuple[str, int], dict[str, float]] = {}
    for judgement in judgements:
        if judgement.verdict != "skip":
            key = judgement.item.key
            for answer, place in enumerate(places(judgement.ranks)):
                units.setdefault((key, answer), {})[judgement.annotator] = place
    return ordinal_alpha([[unit.get(person) for unit in units.values()] for person in people]) if units else None


def label_report(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Counts, alpha over all, by person (the mean of alpha with each other person), by source; wins by model."""
    people = _grouped(judgements, lambda judgement: judgement.annotator)
    return {
        "rows": len({judgement.item.key for judgement in judgements if judgement.verdict != "skip"}),
        "judgements": len(judgements),
        "alpha": alpha_of(judgements),
        "shared_rows": _num_shared(judgements),
        "annotators": {name: _person(name, people) for name in sorted(people)},
        "sources": {
            name: {"judgements": len(group), "shared_rows": _num_shared(group), "alpha": alpha_of(group)}
            for name, group in sorted(_grouped(judgements, lambda judgement: judgement.item.source).items())
        },
        "wins": win_matrix(judgements),
    }


def _person(name: str, people: dict[str, list[Judgement]]) -> dict[str, Any]:
    mine = people[name]
    pairs = [alpha_of([*mine, *theirs]) for other, theirs in people.items() if other != name]
    known = [alpha for alpha in pairs if alpha is not None]
    verdicts = {verdict: sum(one.verdict == verdict for one in mine) for verdict in ("ranked", "tie", "bad", "skip")}
    return {
        "judgements": len(mine),
        **verdicts,
        "edited": sum(bool(one.edit) for one in mine),
        "alpha": sum(known) / len(known) if known else None,
    }


def _grouped(judgements: Iterable[Judgement], name_of: Callable[[Judgement], str]) -> dict[str, list[Judgement]]:
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(name_of(judgement), []).append(judgement)
    return groups


def _num_shared(judgements: Iterable[Judgement]) -> int:
    """Rows two or more people judged."""
    rows = _grouped((one for one in judgements if one.verdict != "skip"), lambda judgement: judgement.item.key)
    return sum(len(group) > 1 for group in rows.values())


def win_matrix(judgements: Iterable[Judgement]) -> dict[str, dict[str, dict[str, int]]]:
    """matrix[a][b] = {"wins", "ties", "losses"} of answers by model a against b; {} where no models are known."""
    matrix: dict[str, dict[str, dict[str, int]]] = {}

    def count(model: str, other: str, outcome: str) -> None:
        cell = matrix.setdefault(model, {}).setdefault(other, {"wins": 0, "ties": 0, "losses": 0})
        cell[outcome] += 1

    for judgement in judgements:
        models, ranks = judgement.item.models, judgement.ranks
        if judgement.verdict == "skip" or not models:
            continue
        for a, b in combinations(range(len(ranks)), 2):
            if models[a] != models[b]:
                outcomes = ("ties", "ties") if ranks[a] == ranks[b] else ("wins", "losses")
                if ranks[a] > ranks[b]:
                    outcomes = ("losses", "wins")
                count(models[a], models[b], outcomes[0])
                count(models[b], models[a], outcomes[1])
    return matrix
