"""Calibration and correlations, by hand."""

from __future__ import annotations

import math

import pytest

from rlhf.evaluate.reward.accuracy import ScoredRanking
from rlhf.evaluate.reward.calibration import calibration, fitted_temperature, length_correlation, mean_kendall

LOG3 = math.log(3)  # sigmoid(log 3) = .75


def test_expected_calibration_error_and_table():
    # confidence .75 four times (two right), confidence .525 twice (one right, one wrong)
    near = math.log(0.525 / 0.475)
    found = calibration([LOG3, LOG3, -LOG3, -LOG3, near, -near])
    assert found["ece"] == pytest.approx((4 * 0.25 + 2 * 0.025) / 6)
    first, second = found["reliability"]
    assert (first["low"], first["high"], first["num_pairs"]) == (0.5, 0.55, 2)
    assert (first["confidence"], first["accuracy"]) == (pytest.approx(0.525), 0.5)
    assert (second["num_pairs"], second["confidence"], second["accuracy"]) == (4, pytest.approx(0.75), 0.5)
    expected = (2 * -math.log(0.75) + 2 * -math.log(0.25) - math.log(0.525) - math.log(0.475)) / 6
    assert found["nll"] == pytest.approx(expected)


def test_certain_scores_go_into_the_last_bin():
    (row,) = calibration([100.0, 100.0])["reliability"]
    assert (row["low"], row["high"], row["confidence"]) == (pytest.approx(0.95), pytest.approx(1.0), 1.0)


def test_temperature_makes_a_single_difference_tell_its_share():
    # d = 2 log 3, right three times in four: sigmoid(d / T) = .75 at T = 2, and the loss is the entropy of .75
    found = calibration([2 * LOG3, 2 * LOG3, 2 * LOG3, -2 * LOG3])
    assert found["temperature"] == pytest.approx(2.0)
    assert found["nll_at_temperature"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert found["nll"] > found["nll_at_temperature"]


def test_temperature_of_too_modest_scores_is_below_one():
    assert calibration([LOG3 / 2] * 3 + [-LOG3 / 2])["temperature"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("differences", "nll"),
    [
        ([-1.0, -2.0, 1.0], math.log(2)),  # worse than a coin: the flatter the better
        ([1.0, -1.0], math.log(2)),
        ([1.0, 2.0], 0.0),  # every pair right: the steeper the better
        ([1.0, 0.0], math.log(2) / 2),
    ],
)
def test_no_finite_temperature(differences, nll):
    import numpy as np

    assert fitted_temperature(np.array(differences)) == (None, pytest.approx(nll))


def test_correlation_of_score_with_length():
    # scores 1 2 4 against lengths 1 2 3: Pearson 3 / sqrt(14 / 3 * 2), Spearman 1
    rows = [ScoredRanking((1, 2), (1.0, 2.0)), ScoredRanking((1, 2), (4.0, 1.0))]
    found = length_correlation(rows, [[1, 2], [3, 1]])
    # lengths 1 2 3 1 (mean 1.75), scores 1 2 4 1 (mean 2): cov 4, variances 2.75 and 6
    assert found["pearson"] == pytest.approx(4 / math.sqrt(2.75 * 6))
    assert found["spearman"] == pytest.approx(1.0)
    assert length_correlation(rows, [[2, 2], [2, 2]]) == {"pearson": None, "spearman": None}


def test_kendall_is_of_rankings_of_three_or_more():
    rows = [
        ScoredRanking((1, 2, 3), (3.0, 1.0, 2.0)),  # two pairs right, one wrong: 1 / 3
        ScoredRanking((1, 1, 2), (2.0, 1.0, 0.0)),  # tau-b: 2 / sqrt(3 * 2)
        ScoredRanking((1, 2, 3), (1.0, 1.0, 1.0)),  # says nothing: 0
        ScoredRanking((1, 2), (0.0, 1.0)),
    ]
    found = mean_kendall(rows)
    assert found["num_rankings"] == 3
    assert found["tau_b"] == pytest.approx((1 / 3 + 2 / math.sqrt(6) + 0) / 3)
    assert mean_kendall(rows[3:]) == {"tau_b": None, "num_rankings": 0}
