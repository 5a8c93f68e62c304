"""Precision, recall, agreement and kappa by hand."""

from __future__ import annotations

import math

import pytest
from sklearn.metrics import cohen_kappa_score

from rlhf.evaluate.measures.agreement import agreement, kappa, precision_recall

# The person says yes 4 times, the rules 3 times, 2 of them rightly; 6 of 9 agree.
PAIRS = [("yes", "yes")] * 2 + [("yes", "no")] * 2 + [("no", "yes")] + [("no", "no")] * 4


def test_precision_and_recall() -> None:
    found = precision_recall(PAIRS, "yes")
    assert found["num"] == 4
    assert found["precision"]["mean"] == pytest.approx(2 / 3)
    assert found["recall"]["mean"] == pytest.approx(2 / 4)
    # Wilson's interval of 2 in 4 is symmetric around 1/2: half its width is z / (2 sqrt(n + z²)), z = 1.959964
    half = 1.959964 / (2 * math.sqrt(4 + 1.959964**2))
    assert found["recall"]["low"] == pytest.approx(0.5 - half, rel=1e-5)
    assert found["recall"]["high"] == pytest.approx(0.5 + half, rel=1e-5)


def test_nothing_flagged_has_no_precision() -> None:
    found = precision_recall([("yes", "no")], "yes")
    assert math.isnan(found["precision"]["mean"])
    assert found["recall"]["mean"] == 0


def test_agreement() -> None:
    assert agreement(PAIRS)["num"] == 9
    assert agreement(PAIRS)["agree"]["mean"] == pytest.approx(6 / 9)


def test_kappa() -> None:
    """Observed 6/9; by chance (4·3 + 5·6) / 81 = 42/81: (54 - 42) / (81 - 42)."""
    assert kappa(PAIRS) == pytest.approx(12 / 39)
    assert kappa([("a", "a"), ("b", "b")]) == 1
    assert math.isnan(kappa([("a", "a")] * 3))
    assert math.isnan(kappa([]))


def test_kappa_of_several_labels_is_that_of_scikit_learn() -> None:
    persons, rules = list("aabbccabcc"), list("abbbcaabcb")
    expected = cohen_kappa_score(persons, rules)
    assert kappa(list(zip(persons, rules, strict=True))) == pytest.approx(expected, rel=1e-9)
