"""Wins at equal length, power, and what the sentence says, on constructed outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression

from rlhf.evaluate.compare.statistics import (
    RIDGE,
    Verdicts,
    comparison_section,
    fit_logistic,
    length_controlled,
    text_words,
)
from rlhf.html.words import Words

NAMES = ("sft", "ppo")


def ones(values: list[float]) -> list[list[float]]:
    return [[value] for value in values]


def section(outcomes: list[float], gaps: list[float] | None = None, kind: str = "judge") -> dict:
    lengths = gaps or [1.0, -1.0] * (len(outcomes) // 2)
    return comparison_section(Verdicts(kind, "m", ones(outcomes), ones(lengths)), NAMES)


def test_where_length_explains_everything_nothing_is_left_at_equal_length() -> None:
    """The longer answer wins 8 of 10 times; the second model's is longer in 300 of 400. It wins .75 * .8 + .25 * .2 =
    .65 of all, and at equal length sigmoid(0) = .5; tanh(+-1) b = logit .8 gives the slope."""
    outcomes = [1.0] * 240 + [0.0] * 60 + [1.0] * 20 + [0.0] * 80
    gaps = [50.0] * 300 + [-50.0] * 100
    found = section(outcomes, gaps)
    assert found["win_rate"]["mean"] == pytest.approx(0.65)
    assert found["win_rate"]["low"] > 0.5
    controlled = found["length_controlled"]
    assert controlled["win_rate"]["mean"] == pytest.approx(0.5, abs=1e-3)  # the ridge
    assert controlled["win_rate"]["low"] < 0.5 < controlled["win_rate"]["high"]
    assert controlled["length_coefficient"] == pytest.approx(math.log(4) / math.tanh(1), rel=1e-2)


def test_where_length_explains_nothing_the_win_rate_stays() -> None:
    found = section([1.0, 1.0, 1.0, 1.0, 0.0, 0.0] * 40, [9.0, -9.0] * 120)
    assert found["length_controlled"]["win_rate"]["mean"] == pytest.approx(2 / 3, abs=1e-3)


def test_a_model_that_is_always_longer_cannot_be_controlled() -> None:
    assert "never the longer" in length_controlled(ones([1.0, 0.0]), ones([3.0, 5.0]))["why_not"]
    assert "why_not" in length_controlled(ones([1.0, 0.0]), ones([0.0, 0.0]))


def test_eight_wins_of_eight_are_not_certain() -> None:
    """Wilson for 8 of 8 starts at 1 - 3.8415 / 11.8415; the same at equal length."""
    found = section([1.0] * 8)
    assert found["win_rate"] == {"mean": 1.0, "low": pytest.approx(8 / 11.8415, abs=1e-4), "high": 1.0}
    assert found["length_controlled"] == {"win_rate": found["win_rate"], "length_coefficient": 0.0}


def test_the_regression_is_that_of_another_implementation() -> None:
    generator = np.random.default_rng(3)
    x = generator.normal(size=60)
    y = (generator.random(60) < 1 / (1 + np.exp(-(0.4 + 1.5 * x)))).astype(float)
    weights = generator.integers(1, 4, 60).astype(float)
    other = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=1e-10, max_iter=1000)
    other.fit(np.stack([np.ones(60), x], 1), y, sample_weight=weights)
    assert fit_logistic(x, y, weights[None])[0] == pytest.approx(other.coef_[0], abs=1e-4)


def test_the_regression_stays_finite_where_one_model_wins_everything() -> None:
    """50 wins at no difference: 50 (1 - sigmoid(a)) = RIDGE a."""
    expected = brentq(lambda a: 50 / (1 + math.exp(a)) - RIDGE * a, 0, 50)
    assert fit_logistic(np.zeros(50), np.ones(50), np.ones((1, 50)))[0] == pytest.approx([expected, 0.0], abs=1e-6)


def test_better_worse_and_cannot_be_told_in_two_languages() -> None:
    better, worse, unknown = (
        section([1.0] * 36 + [0.0] * 4),
        section([0.0] * 36 + [0.5] * 4),
        section([1.0, 0.0] * 9 + [1.0, 1.0]),
    )
    assert [each["outcome"] for each in (better, worse, unknown)] == ["better", "worse", "unknown"]
    assert "ppo is better than sft: it wins 90.0% [" in better["sentence"]["en"]
    assert "보다 낫습니다" in better["sentence"]["ko"]
    assert "ppo is worse than sft" in worse["sentence"]["en"]
    assert (worse["wins"], worse["ties"], worse["losses"]) == (0, 4, 36)
    assert "우열을 가릴 수 없습니다" in unknown["sentence"]["ko"]


def test_how_many_prompts_would_tell() -> None:
    """11 of 20: sd of the outcomes sqrt(20/19 * .2475) = .5104, so (2.8016 * .5104 / .05)^2 = 818 prompts."""
    found = section([1.0] * 11 + [0.0] * 9)
    assert found["prompts_for_80_percent_power"] == pytest.approx(7.8489 * (20 / 19 * 0.2475) / 0.0025, abs=1)
    assert "About 818 prompts" in found["sentence"]["en"]
    assert "818개쯤" in found["sentence"]["ko"]


def test_an_even_result_a_tiny_difference_and_a_handful_of_prompts() -> None:
    assert "exactly even" in section([1.0, 0.0] * 10)["sentence"]["en"]
    tiny = section([1.0] * 501 + [0.0] * 499)
    assert "more than 20,000 prompts" in tiny["sentence"]["en"]
    few = section([1.0] * 8)
    assert few["outcome"] == "unknown"  # eight wins of eight: below ten prompts nothing is believed


def test_prompts_nobody_decided_on_are_counted_apart() -> None:
    found = comparison_section(Verdicts("people", "", [[1.0], [], [0.5]], [[1.0], [], [2.0]]), NAMES)
    assert (found["num_prompts"], found["num_undecided"]) == (2, 1)
    assert found["win_rate"]["mean"] == 0.75
    assert "sentence" not in comparison_section(Verdicts("judge", "m", [[]], [[]]), NAMES)


def test_without_anybody_only_the_texts_are_told_apart() -> None:
    found = text_words([Words("길이", "length"), Words("거절", "refusals")], NAMES, 1060)
    assert "better or worse cannot be said" in found.en
    assert "differ between ppo and sft on 1,060 prompts: length, refusals." in found.en
    assert "뚜렷이 다른 점: 길이, 거절." in found.ko
    assert "none." in text_words([], NAMES, 60).en
