"""Agreement of annotators: Krippendorff's alpha on ranks, and a win matrix of the models.

A unit is one answer of one row; its value is the place that a person gave it, from 0 (best) to 1 (last), so that
rows with different numbers of answers can be combined. Ties share the mean of their places. The metric is ordinal.
Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from typing import Any, get_args

from rlhf.curate.label.draft import Judgement, Verdict

Ratings = Sequence[Sequence[float | None]]


def ordinal_alpha(ratings: Ratings) -> float | None:
    """Krippendorff's alpha of ratings[person][unit], None where a person did not rate.

    1 is full agreement, 0 is chance. None where alpha is undefined: no unit has two ratings, or all are equal.
    """
    import krippendorff
    import numpy

    table = numpy.array(ratings, dtype=float)  # None becomes NaN
    table = table[:, (~numpy.isnan(table)).sum(axis=0) > 1]
    if len(numpy.unique(table[~numpy.isnan(table)])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal"))


def places(ranks: Sequence[int]) -> tuple[float, ...]:
    """The place of each answer from 0 (best) to 1 (last); ties share the mean of their places."""
    from scipy.stats import rankdata

    return tuple(((rankdata(ranks) - 1) / (len(ranks) - 1)).tolist())


def alpha_of(judgements: Sequence[Judgement]) -> float | None:
    """Alpha over all answers that two or more of these people placed; skipped rows do not count."""
    people = sorted({judgement.annotator for judgement in judgements})
    units: defaultdict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for judgement in judgements:
        if judgement.verdict != "skip":
            for answer, place in enumerate(places(judgement.ranks)):
                units[judgement.item.key, answer][judgement.annotator] = place
    return ordinal_alpha([[unit.get(person) for unit in units.values()] for person in people]) if units else None


def label_report(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Counts and alpha over all, by person (mean alpha with each other person) and by source; the win matrix."""
    people = grouped(judgements, lambda judgement: judgement.annotator)
    return {
        "rows": len({judgement.item.key for judgement in judgements if judgement.verdict != "skip"}),
        "judgements": len(judgements),
        "alpha": alpha_of(judgements),
        "shared_rows": _num_shared(judgements),
        "annotators": {name: _person(name, people) for name in sorted(people)},
        "sources": {
            name: {"judgements": len(group), "shared_rows": _num_shared(group), "alpha": alpha_of(group)}
            for name, group in sorted(grouped(judgements, lambda judgement: judgement.item.source).items())
        },
        "wins": win_matrix(judgements),
    }


def _person(name: str, people: dict[str, list[Judgement]]) -> dict[str, Any]:
    mine = people[name]
    pairs = [alpha_of([*mine, *theirs]) for other, theirs in people.items() if other != name]
    known = [alpha for alpha in pairs if alpha is not None]
    verdicts = Counter(one.verdict for one in mine)
    return {
        "judgements": len(mine),
        **{verdict: verdicts[verdict] for verdict in get_args(Verdict)},
        "edited": sum(bool(one.edit) for one in mine),
        "alpha": sum(known) / len(known) if known else None,
    }


def grouped(judgements: Iterable[Judgement], name_of: Callable[[Judgement], str]) -> dict[str, list[Judgement]]:
    """The judgements by name, in the order of their first occurrence."""
    groups: defaultdict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        groups[name_of(judgement)].append(judgement)
    return groups


def _num_shared(judgements: Iterable[Judgement]) -> int:
    """Rows that two or more people judged."""
    rows = grouped((one for one in judgements if one.verdict != "skip"), lambda judgement: judgement.item.key)
    return sum(len(group) > 1 for group in rows.values())


def win_matrix(judgements: Iterable[Judgement]) -> dict[str, dict[str, dict[str, int]]]:
    """matrix[a][b] = {"wins", "ties", "losses"} of answers by model a against b; {} where no models are known."""
    matrix: dict[str, dict[str, dict[str, int]]] = {}
    for judgement in judgements:
        if judgement.verdict == "skip" or not judgement.item.models:
            continue
        placed = zip(judgement.item.models, judgement.ranks, strict=True)
        for (model, rank), (other, other_rank) in permutations(placed, 2):
            if model != other:
                cell = matrix.setdefault(model, {}).setdefault(other, {"wins": 0, "ties": 0, "losses": 0})
                cell["wins" if rank < other_rank else "losses" if rank > other_rank else "ties"] += 1
    return matrix
