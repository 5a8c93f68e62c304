"""Rewards at offsets of an answer: where they land, and what each estimator makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf.config.ppo import PpoConfig
from rlhf.data.packing import PackedRow
from rlhf.ops.moments import Moments
from rlhf.train.policy.experience import Experience, gather_experience
from rlhf.train.policy.placed_rewards import PlacedReward, on_tokens, placed_reward
from rlhf.train.policy.reward_sources import RewardSources, TextSource
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample
from tests.support.tables import EOS, ONE_RANK, SameTokenizer, sample
from tests.unit.train.policy.test_experience import Uniform, advantages_of

LETTERS = ("", "가", "나", "다라", "마", "바", "사")  # of each token: EOS none, token 3 two


class Letters(SameTokenizer):
    def text(self, ids: Any) -> str:
        return "".join(LETTERS[number] for number in ids)


class Values(Uniform):
    """A critic that says 0.25 for every token."""

    def infer(self, row: PackedRow) -> Tensor:
        return torch.full((len(row.positions),), 0.25)


def experience(samples: list[Sample], *given: list[Any], moments: Moments | None = None, **ppo: Any) -> Experience:
    """The experience of one reward source per list, each with one reward per sample."""
    options = {"score_clip": None, "gamma": 1.0, "lam": 0.5, "whiten_advantages": False, **ppo}
    config = PpoConfig.model_validate({"train": {"batch_size": 1}, "ppo": options})
    texts = [
        TextSource(f"s{number}", "", 1.0, lambda *_, rewards=rewards: rewards) for number, rewards in enumerate(given)
    ]
    critic = Values() if config.ppo.estimator == "gae" else None
    roles: Any = Roles(Uniform(), critic, Uniform(), None)  # type: ignore[arg-type]
    tokenizer = Letters()
    sources = RewardSources(config, ONE_RANK, (tokenizer, tokenizer), None, texts)
    return gather_experience(samples, roles, sources, config, 0.1, moments or Moments())


def answers() -> list[Sample]:
    """ "가나다라" in three tokens and EOS; "나마", cut; "가" and EOS; EOS alone."""
    return [sample([2], ids) for ids in ([1, 2, 3, EOS], [2, 4], [1, EOS], [EOS])]


def test_gae_by_hand() -> None:
    """Values 0.25, gamma 1, lambda 0.5, no KL: 1 at the end of "가나", 2 at that of "가나다" (token 3 holds "다라"),
    4 at the end, which is EOS.

    delta = r + V' - V: 3.75, 2, 1, 0 from the right (no value after the end); A = delta + A' / 2.
    """
    made = experience(answers()[:1], [[[2, 1.0], [3, 2.0], [4, 4.0]]])
    last = 4 - 0.25
    third = 2 + last / 2
    second = 1 + third / 2
    assert advantages_of(made) == [pytest.approx([second / 2, second, third, last])]
    assert made.metrics["objective/reward"] == 7
    assert made.samples[0].score == 7
    assert made.metrics["reward_by_source/s0"] == 7


def test_the_reward_is_the_sum_of_the_sources_at_each_token() -> None:
    """ "나마" was cut: its second character is the last token, where the number of the other source is paid too."""
    made = experience(answers()[1:2], [[[1, 1.0], [2, 2.0]]], [3.0], lam=1.0, missing_eos_penalty=0.5)
    assert made.samples[0].returns.tolist() == pytest.approx([1 + 2 + 3 - 0.5, 2 + 3 - 0.5])
    assert made.samples[0].score == 6


def test_each_tokens_reward_is_clipped() -> None:
    made = experience(answers()[:1], [[[1, 5.0], [2, -5.0], [4, 5.0]]], lam=1.0, score_clip=2.0)
    assert made.samples[0].returns.tolist() == pytest.approx([2 - 2 + 2, -2 + 2, 2, 2])


def test_running_moments_are_those_of_whole_answers() -> None:
    """Totals 1 + 2 and 1: with two of mean 2 and squares 6, mean 2, squares 6 + 2, deviation sqrt(2). The answers' sums
    are (3 - 2) and (1 - 2) deviations; the step is 1 of the first's."""
    made = experience(
        [answers()[0], answers()[2]],
        [[[1, 1.0], [4, 2.0]], 1.0],
        moments=Moments(2, 2.0, 6.0),
        score_normalise="running",
        lam=1.0,
    )
    assert made.moments == pytest.approx((4, 2.0, 8.0))
    unit = 2**-0.5
    assert made.samples[0].returns.tolist() == pytest.approx([unit, 0, 0, 0], abs=1e-6)
    assert made.samples[1].returns.tolist() == pytest.approx([-unit, -unit])


@pytest.mark.parametrize(("estimator", "unit"), [("rloo", 2.0), ("grpo", 1 / (2**0.5 + 1e-4))])
def test_groups_compare_the_sums_of_answers(estimator: str, unit: float) -> None:
    """1 + 2 against 1, wherever they are: 2 apart, one deviation of sqrt(2) from their mean 2."""
    pair = [answers()[0], answers()[2]]
    made = experience(pair, [[[1, 1.0], [3, 2.0]], 1.0], estimator=estimator, samples_per_prompt=2)
    assert advantages_of(made) == [pytest.approx([unit] * 4), pytest.approx([-unit] * 2)]


def test_reinforce_pp_credits_what_follows() -> None:
    made = experience(answers()[:1], [[[1, 1.0], [3, 2.0]]], estimator="reinforce_pp")
    assert made.samples[0].returns.tolist() == pytest.approx([3, 2, 2, 0], abs=1e-6)


@pytest.mark.parametrize("estimator", ["gae", "rloo", "grpo", "reinforce_pp"])
@pytest.mark.parametrize("normalise", ["none", "running"])
def test_one_reward_at_the_end_is_the_number_bit_for_bit(estimator: str, normalise: str) -> None:
    given = [0.1, -1.7, 3.3, 0.7]
    ends = [[[len(Letters().text(each.response)), reward]] for each, reward in zip(answers(), given, strict=True)]
    options = {"estimator": estimator, "score_normalise": normalise, "score_clip": 2.5, "missing_eos_penalty": 0.3}
    if estimator in ("rloo", "grpo"):
        options["samples_per_prompt"] = 2
    drawn = [
        sample([2], each.response.tolist(), old_logprobs=np.linspace(-3, -1, len(each.response), dtype=np.float32))
        for each in answers()
    ]
    plain, placed = experience(drawn, given, **options), experience(drawn, ends, **options)
    assert advantages_of(placed) == advantages_of(plain)
    assert [each.returns.tolist() for each in placed.samples] == [each.returns.tolist() for each in plain.samples]
    assert placed.metrics == plain.metrics
    assert placed.moments == plain.moments


def test_what_lands_on_the_last_token_is_paid_at_the_end() -> None:
    """Token 3 holds both characters: offsets 1 and 2 of "다라" are one place."""
    response = np.asarray([3], np.int32)
    assert on_tokens(placed_reward([(1, 0.5), (2, 1.0)], "다라"), response, Letters()) == (1.5, {})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float32(0.5), PlacedReward(0.5)),
        (torch.tensor([0.5]), PlacedReward(0.5)),  # a row of a model's [B, 1]
        ([], PlacedReward(0.0)),
        (np.asarray([[1, 0.5], [2, 1.5]]), PlacedReward(1.5, ((1, 0.5),))),
    ],
)
def test_arrays_are_read_as_numbers_and_pairs(given: Any, expected: PlacedReward) -> None:
    assert placed_reward(given, "가나") == expected
