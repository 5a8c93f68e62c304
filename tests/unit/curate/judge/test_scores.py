"""The judge's arithmetic, by hand: weighted scores, both orders, position bias, agreement, ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf.curate.judge.rankings import ranked
from rlhf.curate.judge.scores import JudgeReport, PairScores, answer_scores, expected_score, pairs_of


def test_a_score_is_weighted_by_probability_over_the_scores_alone():
    tokens = {"4": 0.6, "5": 0.2, " 4": 0.05, "6": 0.05, "네": 0.05, "0": 0.05}
    # 4 has .65 and 5 has .2 of .85 that is a score: (4 * .65 + 5 * .2) / .85
    score = expected_score({token: math.log(chance) for token, chance in tokens.items()})
    assert score == pytest.approx((4 * 0.65 + 5 * 0.2) / 0.85, abs=1e-12)
    assert expected_score({"3": -0.0}) == 3.0
    assert expected_score({"네": -0.1, "45": -1.0, "": -2.0}) is None
    assert expected_score({}) is None


def pair(one: int, other: int, forward: list[list[float]], backward: list[list[float]]) -> PairScores:
    """Points per criterion of the answer shown first and of the second; `forward` shows `one` first."""
    return PairScores(one, other, np.array([forward, backward]))


LIKES_FIRST = pair(0, 1, forward=[[4], [3]], backward=[[4], [3]])
STEADY = pair(0, 1, forward=[[5], [2]], backward=[[2], [5]])


def test_verdicts_are_on_the_answers_not_on_the_places():
    assert LIKES_FIRST.verdicts == (1, -1)
    assert STEADY.verdicts == (1, 1)
    assert pair(0, 1, [[0.1 + 0.2], [0.3]], [[1], [2]]).verdicts == (0, 1)  # equal but for rounding


def test_both_orders_are_averaged():
    assert answer_scores(2, [LIKES_FIRST]) == [[3.5], [3.5]]  # (4 + 3) / 2 each: nothing but the place counted
    assert answer_scores(2, [STEADY]) == [[5.0], [2.0]]


def test_an_answer_of_several_pairs_has_the_mean_of_all_it_was_shown_in():
    other = pair(1, 2, forward=[[1], [4]], backward=[[5], [1]])
    # answer 1: 2 and 2 against answer 0, then 1 and 1; answer 2: 4 and 5
    assert answer_scores(3, [STEADY, other]) == [[5.0], [1.5], [4.5]]


def test_position_bias_is_what_the_place_alone_gives():
    report = JudgeReport(("친근함",))
    report.pairs.append(LIKES_FIRST.points)  # +1 in both orders: bias 1, opposite verdicts
    report.pairs.append(STEADY.points)  # +3 and -3: bias 0, one verdict
    found = report.statistics()
    assert found["pairs_in_both_orders"] == 2
    assert found["first_minus_second"] == 0.5
    assert found["first_minus_second_standard_error"] == 0.5  # deviation of (1, 0) is sqrt(.5), over sqrt(2)
    assert found["first_minus_second_by_criterion"] == {"친근함": 0.5}
    assert (found["first_won"], found["second_won"], found["tied"]) == (3, 1, 0)
    assert found["same_verdict_in_both_orders"] == 0.5
    assert found["opposite_verdicts"] == 0.5


def test_a_judge_that_likes_the_second_has_a_negative_bias():
    points = pair(0, 1, [[1, 3], [3, 3]], [[2, 3], [2, 3]]).points  # -2, then a tie
    found = JudgeReport(("친근함", "무해함"), [points]).statistics()
    assert found["first_minus_second"] == -1.0
    assert found["first_minus_second_by_criterion"] == {"친근함": -1.0, "무해함": 0.0}
    assert (found["first_won"], found["second_won"], found["tied"]) == (0, 1, 1)
    assert found["same_verdict_in_both_orders"] == 0.0
    assert found["opposite_verdicts"] == 0.0
    assert found["first_minus_second_standard_error"] is None  # of one pair
    assert JudgeReport(("친근함",)).statistics() == {}


def test_pairs():
    assert pairs_of(2, "all") == pairs_of(2, "ring") == [(0, 1)]
    assert pairs_of(3, "ring") == [(0, 1), (0, 2), (1, 2)]
    assert len(pairs_of(4, "all")) == 6
    ring = pairs_of(9, "ring")
    assert len(set(ring)) == 9
    assert all(sum(answer in pair for pair in ring) == 2 for answer in range(9))
    assert pairs_of(1, "all") == []


@pytest.mark.parametrize(
    ("sums", "ranks", "kept_tied_low"),
    [
        ([25, 22], (1, 2), (1, 0, 0)),
        ([22, 25], (2, 1), (1, 0, 0)),
        ([25, 12], (1, 2), (1, 0, 0)),  # one good answer is enough
        ([25, 25], (1, 1), (0, 1, 0)),
        ([19.9, 12], (1, 1), (0, 0, 1)),  # both below 20
        ([20, 12], (1, 2), (1, 0, 0)),  # 20 is not below 20
        ([10, 10], (1, 1), (0, 0, 1)),
        ([24, 19, 28, 12], (2, 3, 1, 3), (5, 0, 1)),  # 19 and 12 share the last rank
        ([24, 24, 28], (2, 2, 1), (2, 1, 0)),
        ([3, 2, 1], (1, 1, 1), (0, 0, 3)),
    ],
)
def test_the_rule_for_pairs(sums: list[float], ranks: tuple[int, ...], kept_tied_low: tuple[int, int, int]):
    found = ranked(sums, min_sum=20)
    assert found.ranks == ranks
    assert (found.kept_pairs, found.tied_pairs, found.low_pairs) == kept_tied_low
    assert bool(found.problem) == (kept_tied_low[0] == 0)


def test_sums_close_together_tie():
    assert ranked([25.0, 24.6, 22.0], min_sum=20, min_gap=0.5).ranks == (1, 1, 3)
    assert ranked([25.0, 24.6, 24.2], min_sum=20, min_gap=0.5).ranks == (1, 1, 1)  # linked by the one between
    assert ranked([0.1 + 0.2 + 20, 20.3], min_sum=20).ranks == (1, 1)  # equal but for rounding


def test_why_nothing_is_left_of_a_row():
    assert ranked([25, 25], min_sum=20).problem == "every pair ties"
    assert ranked([12, 10], min_sum=20).problem == "every pair below the least sum"
    linked = ranked([20.2, 19.9, 19.8], min_sum=20, min_gap=0.5)
    assert (linked.tied_pairs, linked.low_pairs) == (2, 1)
    assert linked.problem == "every pair ties or is below the least sum"
