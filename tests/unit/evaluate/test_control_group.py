"""Best-of-n against enumeration, its KL, the needed number of prompts, and what the verdict says."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from rlhf.evaluate.control_group import best_of_n, best_of_n_kl, control_card, prompts_needed


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_best_of_n_is_the_mean_over_every_subset(n: int) -> None:
    pools = np.random.default_rng(0).normal(size=(4, 6))
    pools[0, 2] = pools[0, 4]  # a tie
    expected = [np.mean([max(chosen) for chosen in combinations(pool, n)]) for pool in pools]
    assert best_of_n(pools, n) == pytest.approx(np.asarray(expected))


def test_best_of_n_by_hand() -> None:
    """Pairs of 1, 2, 4: highest 2, 4, 4."""
    assert best_of_n(np.asarray([[4.0, 1.0, 2.0]]), 2).tolist() == pytest.approx([10 / 3])


@pytest.mark.parametrize("n", [0, 4])
def test_more_than_the_pool_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 3"):
        best_of_n(np.zeros((2, 3)), n)


def test_the_kl_of_best_of_n() -> None:
    """Exact KL of the best of n draws over k equally likely, strictly ordered answers, for a large k."""
    assert best_of_n_kl(1) == 0
    k, n = 4000, 4
    shares = np.diff((np.arange(k + 1) / k) ** n)
    exact = float((shares * np.log(shares * k)).sum())
    assert best_of_n_kl(n) == pytest.approx(exact, abs=2e-3)  # k is finite
    assert best_of_n_kl(n) >= exact


def test_the_number_of_prompts_for_an_effect() -> None:
    """(1.959964 + .841621)^2 = 7.8489 times (sd / mean)^2: differences 0 and 2 have mean 1, sd sqrt 2."""
    assert prompts_needed(np.asarray([0.0, 2.0])) == math.ceil(7.8489 * 2)
    assert prompts_needed(np.asarray([1.0, -1.0])) is None


def card(gain: float, **changed: Any) -> dict[str, Any]:
    generator = np.random.default_rng(1)
    reference = generator.normal(size=(40, 8))
    policy = reference[:, :1] + gain + generator.normal(scale=0.5, size=(40, 1))
    options = {"best_of": [2, 8], "decoding": {"temperature": 1.0}, **changed}
    return control_card(reference, policy, [1.0, 3.0], **options)


def test_a_difference_of_a_hundred_thousandth_is_not_shown_as_none() -> None:
    reference = np.random.default_rng(2).normal(scale=1e-5, size=(12, 8))
    after = reference[:, :1] + 2e-5
    found = control_card(reference, after, [0.0], best_of=[2], decoding={})
    assert found["outcome"] == "better"
    assert "+0.000" not in found["verdict"]
    assert "e-05 [+" in found["verdict"]
    same = control_card(reference, reference, [0.0], best_of=[2], decoding={})
    assert "e+00" not in same["verdict"]


def test_better_worse_and_cannot_be_told() -> None:
    better, worse, unknown = card(0.8), card(-0.8), card(0.02)
    assert [each["outcome"] for each in (better, worse, unknown)] == ["better", "worse", "unknown"]
    assert "scores better than the model it started from: +0." in better["verdict"]
    assert "scores worse" in worse["verdict"]
    assert "Too few prompts to tell" in unknown["verdict"]
    needed = unknown["policy_minus_reference"]["prompts_for_80_percent_power"]
    assert f"about {needed:,} prompts" in unknown["verdict"]


def test_a_handful_of_prompts_tells_nothing() -> None:
    """A difference of 5 everywhere: below 10 prompts it is not believed."""
    few, enough = (
        control_card(np.zeros((n, 2)), np.full((n, 1), 5.0), [1.0], best_of=[2], decoding={}) for n in (9, 10)
    )
    assert (few["outcome"], enough["outcome"]) == ("unknown", "better")
    assert "Too few prompts to tell the policy from the model it started from" in few["verdict"]
    assert ": +5.000 [+5.000, +5.000] on 9 prompts; about 10" in few["verdict"]


def test_arms_and_their_kl() -> None:
    found = card(0.8)
    assert found["policy"]["kl"] == pytest.approx(2.0)
    assert [arm["n"] for arm in found["best_of_n"]] == [2, 8]
    assert found["best_of_n"][1]["kl"] == pytest.approx(math.log(8) - 7 / 8)
    assert found["reference"]["mean"] < found["best_of_n"][0]["mean"] < found["best_of_n"][1]["mean"]
    difference = found["policy"]["mean"] - found["reference"]["mean"]
    assert found["policy_minus_reference"]["mean"] == pytest.approx(difference)
    assert found["policy_minus_reference"]["low"] < difference < found["policy_minus_reference"]["high"]


def test_only_the_paired_draws_stand_for_the_reference() -> None:
    """Two answers a prompt: the mean of the pool's first two columns, not of the pool."""
    reference = np.asarray([[1.0, 3.0, 9.0, 9.0], [0.0, 2.0, 9.0, 9.0]])
    found = control_card(reference, np.asarray([[5.0, 5.0], [3.0, 5.0]]), [0.0], best_of=[4], decoding={})
    assert found["reference"]["mean"] == pytest.approx(1.5)
    assert found["policy_minus_reference"]["mean"] == pytest.approx((3 + 3) / 2)
    assert found["best_of_n"][0]["mean"] == pytest.approx(9.0)
    assert "It scores 4.500 at 0.00 nats of KL; sampling from that model, best-of-4 9.000 at 0.64." in found["verdict"]


def test_the_verdict_names_the_arms_around_the_policy() -> None:
    """Pools 1 to 4: best-of-2 is 10 / 3, best-of-4 is 4 (of six pairs: 2, 3, 3, 4, 4, 4)."""
    reference = np.tile([1.0, 2.0, 3.0, 4.0], (2, 1))
    found = control_card(reference, np.full((2, 1), 3.5), [2.0], best_of=[2, 3, 4], decoding={})
    assert "best-of-2 3.333 at 0.19 and best-of-3 3.750 at 0.43." in found["verdict"]
