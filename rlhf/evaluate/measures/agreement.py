"""Agreement of rules with labels: precision and recall with intervals, the share that agrees, Cohen's kappa."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from rlhf.evaluate.intervals import Figure, wilson

Pair = tuple[str, str]  # the label a person gave, and what the rules say


class Precision(TypedDict):
    """How far the rules can be believed about one label.

    num: rows with that label; precision: of the rows that the rules give it, the share that has it; recall: of the rows
    that have it, the share that the rules find. Both NaN over no rows.
    """

    num: int
    precision: Figure
    recall: Figure


class Agreement(TypedDict):
    """How many rows there are, and the share on which the rules agree with the person."""

    num: int
    agree: Figure


def precision_recall(pairs: Sequence[Pair], label: str) -> Precision:
    """Precision and recall of the rules for one label, with Wilson's intervals."""
    has, given = (sum(pair[side] == label for pair in pairs) for side in (0, 1))
    both = sum(pair == (label, label) for pair in pairs)
    return {"num": has, "precision": wilson(both, given), "recall": wilson(both, has)}


def agreement(pairs: Sequence[Pair]) -> Agreement:
    """The share of rows on which both agree."""
    return {"num": len(pairs), "agree": wilson(sum(person == rule for person, rule in pairs), len(pairs))}


def kappa(pairs: Sequence[Pair]) -> float:
    """Cohen's kappa: agreement beyond what both would reach by chance, 1 at most; NaN where chance alone agrees.

    Source: Cohen (1960).
    """
    if not pairs:
        return math.nan
    persons, rules = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    observed = sum(person == rule for person, rule in pairs) / len(pairs)
    expected = sum(count * rules[label] for label, count in persons.items()) / len(pairs) ** 2
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan
