"""Pairs of rankings and the accuracy over them, by hand."""

from __future__ import annotations

import math

import pytest

from rlhf.evaluate.reward.accuracy import (
    Pair,
    ScoredRanking,
    accuracy,
    accuracy_of,
    breakdown,
    report_card,
    untied_pairs,
)


def test_untied_pairs_with_their_rank_gap():
    # ranks 4 1 1 2: places 2 0 0 1, so 4 against 1 is two places apart though ranks differ by three
    assert set(untied_pairs([4, 1, 1, 2])) == {
        Pair(1, 0, 2),
        Pair(2, 0, 2),
        Pair(3, 0, 1),
        Pair(1, 3, 1),
        Pair(2, 3, 1),
    }


def test_accuracy_counts_equal_scores_as_half():
    rows = [ScoredRanking((1, 2, 3), (2.0, 2.0, 1.0)), ScoredRanking((2, 1), (1.0, 0.0))]
    found = accuracy(rows)  # .5 + 1 + 1 of three pairs, 0 of one
    assert found["accuracy"] == pytest.approx(2.5 / 4)
    assert found["num_pairs"] == 4
    assert accuracy(rows, neighbours=True)["accuracy"] == pytest.approx(1.5 / 3)


def test_the_interval_is_of_whole_prompts():
    # 100 prompts of 10 pairs, all right or all wrong: standard error sqrt(.25 / 100) = .05, not sqrt(.25 / 1000)
    found = accuracy_of([[1.0] * 10, [0.0] * 10] * 50)
    assert found["low"] == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)  # 2,000 draws
    assert found["high"] == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)


def test_a_few_prompts_all_right_are_not_certain():
    """7 of 7 prompts, two pairs each: Wilson for 7 of 7 starts at 1 - 3.8415 / 10.8415; for 0 of 7 it ends there."""
    right, wrong = accuracy_of([[1.0, 1.0]] * 7), accuracy_of([[0.0, 0.0]] * 7)
    assert right == {"accuracy": 1.0, "low": pytest.approx(7 / 10.8415, abs=1e-4), "high": 1.0, "num_pairs": 14}
    assert wrong == {"accuracy": 0.0, "low": 0.0, "high": pytest.approx(3.8415 / 10.8415, abs=1e-4), "num_pairs": 14}


def test_no_pairs_have_no_accuracy():
    assert math.isnan(accuracy([])["accuracy"])


def test_accuracy_by_source_and_of_length():
    rows = [
        ScoredRanking((1, 2), (1.0, 0.0), "가"),
        ScoredRanking((1, 2), (0.0, 1.0), "나"),
        ScoredRanking((1, 2), (1.0, 0.0), "나"),
    ]
    card = report_card(rows, [[5, 3], [5, 3], [2, 9]])
    assert {name: each["accuracy"] for name, each in card["by_source"].items()} == {"가": 1.0, "나": 0.5}
    assert card["longer_answer"]["accuracy"] == pytest.approx(2 / 3)
    assert card["accuracy"] == pytest.approx(2 / 3)


def test_accuracy_by_k_by_gap_and_by_length():
    rows = [
        ScoredRanking((1, 2), (1.0, 0.0)),  # 2 tokens, right
        ScoredRanking((1, 2), (0.0, 1.0)),  # 4 tokens, wrong
        ScoredRanking((1, 2, 3), (1.0, 2.0, 0.0)),  # gap 1 wrong (20 tokens), gap 2 right (20), gap 1 right (20)
    ]
    found = breakdown(rows, [[1, 1], [2, 2], [10, 10, 10]])
    assert {name: each["accuracy"] for name, each in found["by_k"].items()} == {"2": 0.5, "3": pytest.approx(2 / 3)}
    assert {name: each["accuracy"] for name, each in found["by_rank_gap"].items()} == {"1": 0.5, "2": 1.0}
    # five pairs of 2 4 20 20 20 tokens: quartiles 4, 20, 20
    lengths = [(each["min_tokens"], each["max_tokens"], each["accuracy"]) for each in found["by_length"]]
    assert lengths == [(2.0, 4.0, 0.5), (4.0, 20.0, pytest.approx(2 / 3))]


def test_rankings_of_one_prompt_are_drawn_together():
    # Twenty prompts, half of them right. Said twice each, they are still twenty: the interval stays as it was.
    once = [ScoredRanking((1, 2), (float(number % 2), 0.5), prompt=f"p{number}") for number in range(20)]
    single, double = accuracy(once), accuracy([*once, *once])
    assert (single["accuracy"], single["num_pairs"], double["num_pairs"]) == (0.5, 20, 40)
    assert (double["low"], double["high"]) == (single["low"], single["high"])
    strangers = accuracy([ScoredRanking(row.ranks, row.scores) for row in [*once, *once]])
    assert strangers["high"] - strangers["low"] < single["high"] - single["low"]
