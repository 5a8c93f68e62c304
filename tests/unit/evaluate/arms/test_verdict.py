"""Which arm to ship, in every case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhf.evaluate.arms.statistics import all_pairs, compared
from rlhf.evaluate.arms.verdict import Standing, decide
from rlhf.evaluate.intervals import Floats, mean_figure
from rlhf.html.words import Words

NOISE = np.tile([-1.0, 1.0, 0.5, -0.5], 50)  # sd .79 over 200 prompts: an error of .056
OTHER = np.repeat([-1.0, 1.0, 0.5, -0.5], 50)  # of the same spread, and of no covariance with it


def standing(scores: Mapping[str, Floats], **more: Any) -> Standing:
    rewards = {name: mean_figure(each) for name, each in scores.items()}
    distances = dict.fromkeys(scores, 2.5)
    found = Standing(rewards, all_pairs(scores), distances, {"dpo": 100.0, "ppo": 900.0, "best_of_n": 50.0})
    return replace(found, **more)


def test_one_arm_is_above_all_others() -> None:
    found = decide(standing({"sft": NOISE, "dpo": NOISE + 1, "ppo": OTHER + 2}))
    assert (found.outcome, found.arm, found.needed) == ("one", "ppo", None)
    assert found.sentence.en.startswith("Ship ppo: on 200 held-out prompts the judge scores it above every other arm")
    assert "after correction for 3 comparisons; the next, dpo, is +1.000 [" in found.sentence.en
    assert found.sentence.en.endswith("ppo is 2.50 nats per sequence from the SFT model and took 900 s.")
    assert found.sentence.ko.startswith("ppo 배포를 권합니다")


def test_of_two_there_is_one_comparison_and_nothing_to_correct() -> None:
    better, worse = (decide(standing({"sft": NOISE, "ppo": OTHER + shift})) for shift in (2, -2))
    assert (better.outcome, worse.outcome) == ("one", "keep")
    assert better.sentence.en.startswith("Ship ppo: on 200 held-out prompts the judge scores it above sft (+2.000 [")
    assert worse.sentence.en.startswith(
        "Keep the SFT model (sft): on 200 held-out prompts the judge scores it above ppo"
    )
    assert not any("보정" in each.sentence.ko for each in (better, worse))


def test_arms_that_cannot_be_told_apart_and_how_many_prompts_would_tell() -> None:
    """ppo leads dpo by .05 with sd 1.118 of the difference, which is held to Holm's last step, 95 %:
    (1.960 + .8416)^2 x 1.118^2 / .05^2 = 3,925 and a few for the sample's sd."""
    scores = {"sft": NOISE - 3, "dpo": NOISE, "ppo": OTHER + 0.05}
    found = decide(standing(scores))
    spread = float((scores["ppo"] - scores["dpo"]).std(ddof=1))
    assert (found.outcome, found.arm) == ("tied", "dpo")  # the cheaper of both
    assert found.needed == int(np.ceil((2.801585 * spread / 0.05) ** 2))
    assert (
        "ppo scores highest, but cannot be told from dpo on 200 prompts (ppo minus dpo: +0.050 [" in found.sentence.en
    )
    assert f"About {found.needed:,} prompts would tell (80 % power" in found.sentence.en
    assert "Until then ship dpo, which took the least time of those that cannot be told from" in found.sentence.en


def test_an_arm_that_may_be_no_better_than_the_sft_model_is_not_taken_for_being_cheap() -> None:
    """best_of_n cannot be told from ppo, nor from the SFT model: its own differences are wild."""
    wild = 6 * OTHER
    scores = {"sft": NOISE, "best_of_n": wild + 0.6, "ppo": NOISE + 1}
    found = decide(standing(scores))
    assert (found.outcome, found.arm) == ("tied", "ppo")


def test_an_arm_above_the_sft_model_is_taken_though_the_best_is_not_above_it() -> None:
    """The wild arm leads, with an error of .67: it cannot be told from either, and dpo can be told from sft."""
    found = decide(standing({"sft": NOISE, "wild": 12 * OTHER + 1.2, "dpo": NOISE + 0.9}))
    assert (found.outcome, found.arm) == ("tied", "dpo")
    assert found.sentence.en.startswith("wild scores highest, but cannot be told from dpo, sft on 200 prompts")


def test_what_cannot_be_told_from_the_sft_model_is_not_shipped() -> None:
    found = decide(standing({"sft": NOISE, "dpo": OTHER + 0.02, "ppo": NOISE - 2}))
    assert (found.outcome, found.arm) == ("none", "sft")
    said = "No arm is shown to be above the SFT model on 200 prompts: dpo scores highest, but cannot be told from sft"
    assert said in found.sentence.en
    assert "Until then keep the SFT model." in found.sentence.en
    assert "nats" not in found.sentence.en
    lower = decide(standing({"sft": OTHER + 0.02, "dpo": NOISE}))
    assert (lower.outcome, lower.arm) == ("none", "sft")


def test_small_differences_are_out_of_reach_and_equal_ones_are_not_told_by_any_number() -> None:
    tiny = decide(standing({"sft": NOISE, "dpo": OTHER + 0.0001}))
    assert "take more than 20,000 prompts to tell" in tiny.sentence.en
    equal = decide(standing({"sft": NOISE, "dpo": OTHER}))
    assert equal.needed is None
    assert "Their means are equal" in equal.sentence.en


def test_the_sft_model_may_be_the_best() -> None:
    found = decide(standing({"sft": NOISE + 1, "dpo": NOISE, "ppo": OTHER}))
    assert (found.outcome, found.arm) == ("keep", "sft")
    assert found.sentence.en.startswith("Keep the SFT model (sft)")


def test_few_prompts_give_no_verdict() -> None:
    found = decide(standing({"sft": np.zeros(9), "ppo": np.ones(9)}))
    assert (found.outcome, found.arm) == ("few", "")
    assert found.sentence.en == "9 held-out prompts are too few for a verdict; ask at least 10."


def test_an_interrupted_comparison_chooses_nothing() -> None:
    found = decide(Standing(unfinished={"ppo": "preempted", "grpo": "not started"}, interrupted=True))
    assert (found.outcome, found.arm) == ("interrupted", "")
    assert found.sentence.en == (
        "Interrupted, and nothing is chosen yet. Not finished: ppo (preempted), grpo (not started). "
        "The same command goes on."
    )


def test_an_arm_that_failed_is_named_and_the_others_are_compared() -> None:
    found = decide(standing({"sft": NOISE, "dpo": NOISE + 1}, unfinished={"ppo": "the loss is not finite"}))
    assert (found.outcome, found.arm) == ("one", "dpo")
    assert found.sentence.en.endswith("ppo did not finish and is not compared (the loss is not finite).")
    alone = decide(standing({}, unfinished={"ppo": "no memory"}))
    assert alone.outcome == "interrupted"
    assert alone.sentence.en.startswith("No arm is finished")


def test_what_became_worse_and_what_people_say_is_added() -> None:
    scores = {"sft": NOISE, "ppo": OTHER + 2}
    worse = {"ppo": [Words("다양성", "distinct-2"), Words("소재", "on topic")]}
    found = decide(standing(scores, worse=worse))
    assert "Worse than the SFT model: distinct-2, on topic." in found.sentence.en
    for votes, said in (
        (np.full(30, 0.5), "People agree: ppo wins 100.0% of 30 prompts"),
        (np.tile([0.5, -0.5], 15), "People's votes do not tell ppo from the SFT model: it wins 50.0% of 30 prompts."),
    ):
        assert said in decide(standing(scores, votes=compared({("sft", "ppo"): votes}))).sentence.en


@pytest.mark.parametrize(
    ("votes", "arm", "said"),
    [
        ({("sft", "ppo"): -0.5}, "sft", "Keep the SFT model (sft): the judge would take ppo, but people prefer"),
        ({("ppo", "sft"): 0.5}, "sft", "people prefer the SFT model to it on 100.0% of 30 prompts."),
        (
            {("ppo", "dpo"): 0.5, ("sft", "ppo"): 0.5},
            "dpo",
            "Ship dpo: the judge would take ppo, but people prefer dpo",
        ),
        ({("ppo", "sft"): 0.3, ("dpo", "ppo"): -0.5}, "dpo", "dpo is 2.50 nats per sequence from the SFT model"),
        ({("sft", "dpo"): 0.5}, "ppo", "Ship ppo: on 200 held-out prompts"),  # nobody voted on ppo
        ({("sft", "ppo"): 0.0, ("ppo", "dpo"): -0.5}, "ppo", "People's votes do not tell ppo from the SFT model"),
    ],
)
def test_people_overrule_the_judge(votes: Mapping[tuple[str, str], float], arm: str, said: str) -> None:
    """Shares of won prompts minus a half, of which the second arm of a pair has more where they are above 0."""
    scores = {"sft": NOISE, "dpo": NOISE + 1, "ppo": OTHER + 2}
    found = decide(standing(scores, votes=compared({pair: np.full(30, won) for pair, won in votes.items()})))
    assert found.arm == arm
    assert (found.outcome == "people") == (arm != "ppo")
    assert said in found.sentence.en
    assert ("People" in found.sentence.en) == ("People" in said)


def test_people_may_prefer_an_arm_that_the_judge_cannot_tell_from_the_sft_model() -> None:
    votes = compared({("sft", "dpo"): np.tile([0.5, 0.5, 0.0], 10)})
    found = decide(standing({"sft": NOISE, "dpo": OTHER + 0.02}, votes=votes))
    assert (found.outcome, found.arm) == ("people", "dpo")
    assert (
        "Ship dpo: the judge would take sft, but people prefer dpo to it on 83.3% of 30 prompts." in found.sentence.en
    )


@pytest.mark.parametrize("shift", [0.0, 0.05, 3.0])
def test_every_sentence_is_in_both_languages(shift: float) -> None:
    found = decide(standing({"sft": NOISE, "ppo": OTHER + shift}))
    assert found.sentence.ko != found.sentence.en
    assert "{" not in found.sentence.ko + found.sentence.en
