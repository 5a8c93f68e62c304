"""Comparisons of several arms: Holm's correction by hand, intervals and power by formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from rlhf.evaluate.arms.statistics import DRAWS, all_pairs, compared, holm, two_sided_p


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x .01; 2 x .03; 1 x .04 is below .06
        ([0.02], [0.02]),
        ([0.5, 0.6], [1.0, 1.0]),  # 2 x .5; .6 is below 1
        ([0.04, 0.01, 0.02, 0.005], [0.04, 0.03, 0.04, 0.02]),  # 4 x .005, 3 x .01, 2 x .02, 1 x .04
        ([], []),
    ],
)
def test_holms_correction_by_hand(p_values: list[float], expected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(expected)


def test_p_counts_the_draws_on_the_rarer_side() -> None:
    assert two_sided_p(np.array([1.0, 2.0, -1.0, 3.0])) == pytest.approx(2 * 2 / 5)  # one of four below 0
    assert two_sided_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 4)  # none: 1 / (3 + 1) on a side
    assert two_sided_p(np.zeros(9)) == 1.0  # 0 is on both sides


def test_a_pair_is_compared_prompt_by_prompt() -> None:
    """The arms differ by .5 +- .1 while prompts differ by far more, which pairing takes out."""
    generator = np.random.default_rng(1)
    prompts, noise = generator.normal(0, 10, 100), generator.normal(0, 0.1, 100)
    (found,) = all_pairs({"sft": prompts, "ppo": prompts + 0.5 + noise})
    error = noise.std() / math.sqrt(100)
    assert found.pair == ("sft", "ppo")
    assert found.mean == pytest.approx(0.5 + noise.mean())
    assert found.confidence == pytest.approx(0.95)
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)  # 10,000 draws: 3 % of a quantile
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)
    assert found.p == pytest.approx(2 / (DRAWS + 1))
    assert found.tells


def test_the_interval_of_a_comparison_is_at_the_level_that_holm_gives_it() -> None:
    """Three comparisons: the clearest is held to .05 / 3, the next to .05 / 2, the last to .05."""
    base = np.tile([-1.0, 1.0], 50)  # sd 1: the mean of 100 has an error of .1
    found = compared({("a", "b"): base + 0.1, ("a", "c"): base + 1.0, ("b", "c"): base + 0.25})
    assert [each.confidence for each in found] == pytest.approx([1 - 0.05, 1 - 0.05 / 3, 1 - 0.05 / 2])
    for each, shift in zip(found, (0.1, 1.0, 0.25), strict=True):
        half = norm.ppf((1 + each.confidence) / 2) * 0.1
        assert (each.low, each.high) == pytest.approx((shift - half, shift + half), abs=0.02)
        quantiles = norm.ppf((1 + each.confidence) / 2) + norm.ppf(0.8)
        assert each.needed == math.ceil((quantiles * base.std(ddof=1) / shift) ** 2)
        assert each.tells == (each.low > 0)
    assert [each.tells for each in found] == [False, True, True]


def test_behind_the_first_that_is_not_told_all_are_held_to_its_level() -> None:
    """p of about .036 and .040: the second step asks for .025, and the third is not reached."""
    base = np.tile([-1.0, 1.0], 50)
    found = compared({("a", "b"): base + 1.0, ("a", "c"): base + 0.21, ("b", "c"): base + 0.205})
    assert [each.confidence for each in found] == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 2, 1 - 0.05 / 2])
    assert found[2].p < 0.05
    assert [each.tells for each in found] == [True, False, False]
    assert found[2].low < 0 < found[2].high


def test_many_arms_can_be_told_apart() -> None:
    """24 models make 276 pairs: with 10,000 draws the smallest corrected p would be 276 x 2 / 10,001 = .055."""
    base = np.tile([-1.0, 1.0], 10)
    found = compared({("a", str(number)): base + 3.0 for number in range(276)})
    assert all(each.tells for each in found)
    assert found[0].corrected == pytest.approx(276 * 2 / 110_501)  # 276 x 400 draws, in 500s


def test_what_one_comparison_would_tell_many_may_not() -> None:
    """p = .02 of one is .2 of ten."""
    base = np.tile([-1.0, 1.0], 50)
    alone = compared({("a", "b"): base + 0.24})
    others = {("a", str(number)): base for number in range(9)}
    among = compared({("a", "b"): base + 0.24, **others})
    assert alone[0].tells
    assert alone[0].p == among[0].p < 0.05
    assert among[0].corrected == pytest.approx(10 * among[0].p)
    assert not among[0].tells


def test_few_prompts_never_tell() -> None:
    (found,) = compared({("a", "b"): np.full(9, 3.0)})
    assert found.corrected < 0.05
    assert not found.tells
    (found,) = compared({("a", "b"): np.full(10, 3.0)})
    assert found.tells


def test_seen_from_the_other_arm_the_signs_turn() -> None:
    (found,) = compared({("a", "b"): np.array([1.0, 2.0, 4.0])})
    turned = found.seen_from("a")
    assert found.seen_from("b") is found
    assert (turned.pair, turned.mean, turned.low, turned.high) == (("b", "a"), -found.mean, -found.high, -found.low)
    assert turned.needed == found.needed
