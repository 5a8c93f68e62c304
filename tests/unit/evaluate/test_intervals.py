"""Intervals against hand arithmetic and textbook values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf.evaluate.intervals import (
    SHARE,
    SHARE_DIFFERENCE,
    bootstrap_interval,
    excludes_zero,
    jackknife_figure,
    mean_figure,
    ratio_difference,
    ratio_figure,
    wilson,
)
from rlhf.html.intervals import figure_text


def test_wilson_by_hand() -> None:
    """8 of 10: centre (.8 + 3.8415 / 20) / 1.38415 = .7167, half width .2265; 0 of 10 ends at 3.8415 / 13.8415."""
    found = wilson(8, 10)
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)["high"] == pytest.approx(3.8415 / 13.8415, abs=1e-4)
    assert wilson(0, 10)["low"] == 0
    assert math.isnan(wilson(0, 0)["mean"])


def test_a_ratio_is_of_sums_and_draws_whole_prompts() -> None:
    """Prompts of 1 and 3 sentences, 1 and 0 polite: 1 of 4, not the mean of 1 and 0; draws give 1, 1/4 or 0."""
    found = ratio_figure(np.asarray([1.0, 0.0]), np.asarray([1.0, 3.0]))
    assert found == {"mean": 0.25, "low": 0.0, "high": 1.0}
    assert math.isnan(ratio_figure(np.zeros(2), np.zeros(2))["mean"])


def test_the_bootstrap_of_a_mean_is_that_of_the_normal_and_the_same_each_time() -> None:
    """0 and 1 in equal numbers, 400 prompts: standard error .5 / 20 = .025, so +-.049; 2,000 draws, hence 10 %."""
    values = [0.0, 1.0] * 200
    found = mean_figure(values)
    assert found["mean"] == 0.5
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.025, rel=0.1)
    assert found == mean_figure(values)


def test_a_difference_is_paired() -> None:
    """Prompts differ by 10, the models by 1 everywhere: the paired interval has no width."""
    before, ones = np.asarray([1.0, 11.0, 21.0]), np.ones(3)
    found = ratio_difference((before, before + 1), (ones, ones))
    assert tuple(found.values()) == pytest.approx((1.0, 1.0, 1.0))
    assert excludes_zero(found)
    assert not excludes_zero(ratio_difference((before, before), (ones, ones)))


def test_the_bootstrap_of_any_statistic() -> None:
    """The median of 9 values: the interval of its 2,000 draws, made here one by one from the same stream."""
    values = np.asarray([3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.0, 3.5, 8.0])
    stream = np.random.default_rng(0)
    medians = [np.median(values[stream.integers(0, 9, 9)]) for _ in range(2000)]
    low, high = bootstrap_interval(lambda drawn: np.median(values[drawn], axis=-1), 9)
    assert (low, high) == pytest.approx(tuple(np.percentile(medians, [2.5, 97.5])))


def test_prompts_that_all_agree_leave_doubt_where_the_scale_is_known() -> None:
    """Of 0 differing in 12 Wilson's end is u = 3.8415 / 15.8415 = .2425. A share of 1/3 throughout may fall by u / 3
    and rise by 2 u / 3; a difference of 0 by u; variety of 1 falls by u."""
    third = ratio_figure(np.ones(12), np.full(12, 3.0), SHARE)
    assert tuple(third.values()) == pytest.approx((1 / 3, 1 / 3 - 0.2425 / 3, 1 / 3 + 0.4850 / 3), abs=1e-4)
    ones = np.ones(12)
    gap = ratio_difference((ones, ones), (ones, ones), SHARE_DIFFERENCE)
    assert tuple(gap.values()) == pytest.approx((0, -0.2425, 0.2425), abs=1e-4)
    assert tuple(jackknife_figure(1.0, ones, SHARE).values()) == pytest.approx((1, 1 - 0.2425, 1), abs=1e-4)
    assert mean_figure(ones) == {"mean": 1.0, "low": 1.0, "high": 1.0}  # lengths, say: no scale to doubt by


def test_one_prompt_has_no_interval_but_on_a_known_scale() -> None:
    """Wilson's end for 0 of 1 is 3.8415 / 4.8415."""
    alone = mean_figure([3.0])
    assert (alone["mean"], math.isnan(alone["low"]), math.isnan(alone["high"])) == (3.0, True, True)
    assert not excludes_zero(alone)
    assert mean_figure([1.0], SHARE)["low"] == pytest.approx(1 / 4.84146, abs=1e-5)
    assert jackknife_figure(1.0, np.asarray([0.0]), SHARE)["low"] == pytest.approx(1 / 4.84146, abs=1e-5)


def test_a_figure_as_text() -> None:
    figure = {"mean": 0.75, "accuracy": 0.5, "low": 0.6, "high": 0.9}
    assert figure_text(figure) == "0.750 [0.600, 0.900]"
    assert figure_text(figure, ".0%", "accuracy") == "50% [60%, 90%]"
    assert figure_text(mean_figure([3.0]), "+.1f") == "+3.0"


def test_only_prompts_that_count_are_counted() -> None:
    """Two of four prompts have a sentence: Wilson for 2 of 2 starts at 2 / 5.8415."""
    found = ratio_figure(np.asarray([1.0, 1.0, 0.0, 0.0]), np.asarray([1.0, 1.0, 0.0, 0.0]), SHARE)
    assert found["low"] == pytest.approx(2 / 5.8415, abs=1e-4)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    """1, 2, 3: means without one 2.5, 2, 1.5; sd / sqrt n = 1 / sqrt 3."""
    found = jackknife_figure(2.0, np.asarray([2.5, 2.0, 1.5]))
    assert found["high"] - 2 == pytest.approx(1.959964 / math.sqrt(3))
    assert math.isnan(jackknife_figure(2.0, np.asarray([2.0]))["low"])
