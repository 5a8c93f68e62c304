"""Which tokens learn in PPO, seen in gradients with respect to what the models said at every place of the row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf.data.packing import PackedRow, plan_micro_batches
from rlhf.train.policy.experience import gather_experience
from rlhf.train.policy.reward_sources import RewardSources
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample
from rlhf.train.policy.update import minibatch
from tests.support.tables import EOS, ONE_RANK, RATES, VOCABULARY, SameTokenizer, Table, ppo_config, sample


def updated(samples: list[Sample], **ppo: Any) -> tuple[Table, Table, dict[str, float]]:
    """Actor and critic, zeros everywhere, after a minibatch in one row; the order within a row is by number."""
    config = ppo_config(**ppo)
    total = sum(len(each.sequence) for each in samples)
    actor, critic = Table(torch.zeros(total, VOCABULARY)), Table(torch.zeros(total, 1))
    critic.forward = lambda row: critic.values[row.positions, 0]  # type: ignore[method-assign]
    roles: Any = Roles(actor, critic, None, None)  # type: ignore[arg-type]
    metrics = minibatch(roles, samples, config, RATES, 1)
    return actor, critic, metrics


def test_the_eos_action_learns_and_nothing_around_the_response_does() -> None:
    """Row: prompt 2 3 4, response 5 6 EOS. Token t is chosen by the output at t - 1: places 2, 3, 4 learn.

    Not 0 and 1 (they choose prompt tokens), not 5 (it would choose what follows EOS).
    """
    actor, critic, _ = updated([sample([2, 3, 4], [5, 6, EOS])])
    assert actor.learning == [2, 3, 4]
    assert critic.learning == [2, 3, 4]
    # At ratio 1, d(-A * ratio / 3) / d logit = -(1 [token] - 1/7) / 3 with A = 1.
    expected = torch.full((VOCABULARY,), 1 / 21)
    expected[EOS] -= 1 / 3
    torch.testing.assert_close(actor.values.grad[4], expected)


def test_only_the_eos_learns_when_only_its_advantage_is_not_zero() -> None:
    """A wrong place by one would move this gradient to token 6, or off the row."""
    advantages = np.asarray([0, 0, -2], np.float32)
    actor, _, _ = updated([sample([2, 3, 4], [5, 6, EOS], advantages=advantages)])
    assert actor.learning == [4]
    assert actor.values.grad[4, EOS].item() == pytest.approx(2 / 3 * 6 / 7)  # descent lowers a bad EOS


def test_an_unfinished_answer_learns_all_its_tokens_and_no_eos() -> None:
    actor, _, _ = updated([sample([2, 3], [5, 6, 4])])
    assert actor.learning == [1, 2, 3]
    assert (actor.values.grad[:, EOS] >= 0).all()  # never raised: it was not drawn


def test_neighbours_in_a_packed_row_learn_apart() -> None:
    """Rows 2 3 | 5 EOS and 4 | 6: places 1, 2 and 4. Place 3, the first one's EOS, does not choose the next's 4."""
    actor, critic, _ = updated([sample([2, 3], [5, EOS]), sample([4], [6])])
    assert actor.learning == [1, 2, 4]
    assert critic.learning == [1, 2, 4]
    assert actor.rows[0].labels.tolist() == [5, EOS, 6]


def test_every_token_counts_once_whatever_the_length_of_its_answer() -> None:
    """The denominator is tokens, 3 here, not answers: each token's own logit moves by -(1 - 1/7) / 3."""
    actor, _, _ = updated([sample([2, 3], [5, EOS]), sample([4], [6])])
    own = [actor.values.grad[place, token].item() for place, token in ((1, 5), (2, EOS), (4, 6))]
    assert own == pytest.approx([-6 / 21] * 3)


def test_the_entropy_bonus_reaches_response_places_only() -> None:
    """Not uniform, so that entropy has a slope; advantages 0, so that nothing else has."""
    config = ppo_config(entropy_weight=0.5)
    actor = Table(torch.arange(6 * VOCABULARY).reshape(6, VOCABULARY).float().sin())
    critic = Table(torch.zeros(6))
    one = sample([2, 3, 4], [5, 6, EOS], advantages=np.zeros(3, np.float32))
    metrics = minibatch(Roles(actor, critic, None, None), [one], config, RATES, 1)  # type: ignore[arg-type]
    assert actor.learning == [2, 3, 4]
    logits = actor.values.detach()[2:5].requires_grad_()
    entropy = torch.distributions.Categorical(logits=logits).entropy().sum()
    entropy.backward()
    # A bonus is subtracted: descent raises the entropy, 0.5 of its mean over 3 tokens.
    torch.testing.assert_close(actor.values.grad[2:5], -0.5 / 3 * logits.grad, rtol=1e-5, atol=1e-7)
    assert metrics["policy/loss"] == 0
    assert metrics["policy/entropy_loss"] == pytest.approx(-0.5 / 3 * entropy.item(), rel=1e-5)
    expected = metrics["policy/entropy_loss"] + metrics["value/loss"]
    assert metrics["loss"] == pytest.approx(expected, rel=1e-9)


def test_the_value_is_read_before_the_token_it_judges() -> None:
    """Half the squared error over 2 tokens: gradient (V - R) / 2 = -(1, 3) / 2 at places 1 and 2."""
    returns = np.asarray([1, 3], np.float32)
    _, critic, metrics = updated([sample([2, 3], [5, EOS], returns=returns)], value_clip=None)
    assert critic.values.grad[:, 0].tolist() == pytest.approx([0, -0.5, -1.5, 0])
    assert metrics["value/loss"] == pytest.approx((1 + 9) / 4)


def experienced(samples: list[Sample], score: Callable[[PackedRow], Tensor], **ppo: Any) -> list[Sample]:
    """Samples after the experience stage; reference as uniform as the old policy, values 0."""
    config = ppo_config(whiten_advantages=False, **ppo)

    class Uniform(Table):
        def __init__(self) -> None: ...

        def forward(self, row: PackedRow) -> Tensor:
            return torch.zeros(len(row.positions), VOCABULARY)

        def infer(self, row: PackedRow) -> Tensor:
            return torch.zeros(len(row.positions))

    class Scorer(Uniform):
        def infer(self, row: PackedRow) -> Tensor:
            return score(row)

    roles: Any = Roles(Uniform(), Uniform(), Uniform(), Scorer())  # type: ignore[arg-type]
    plan = plan_micro_batches([len(each.sequence) for each in samples], config.train.micro_tokens, 1)
    assert len(plan[0]) == 1
    same_for_both: Any = SameTokenizer()
    sources = RewardSources(config, ONE_RANK, (same_for_both, same_for_both), roles.reward)
    return gather_experience(samples, roles, sources, config, kl_coefficient=0.1).samples


def test_the_score_is_read_and_paid_at_the_sampled_eos() -> None:
    """gamma = lambda = 0 and values 0: an advantage is the reward of its own token."""
    seen: list[list[int]] = []

    def score(row: PackedRow) -> Tensor:
        seen.append(row.input_ids[0, row.positions].tolist())
        return torch.tensor([2.0, -3.0])

    samples = [sample([2, 3], [5, EOS]), sample([4], [6, 5, EOS])]
    first, second = experienced(samples, score, gamma=0.0, lam=0.0)
    assert seen == [[EOS, EOS]]
    assert first.advantages.tolist() == pytest.approx([0, 2], abs=1e-6)
    assert second.advantages.tolist() == pytest.approx([0, 0, -3], abs=1e-6)


def test_the_longer_answer_beside_it_changes_nothing_for_the_shorter() -> None:
    """What pads the shorter one's columns reaches neither its advantages nor its returns."""
    short, long = sample([2, 3], [5, EOS]), sample([4], [6, 5, 3, 2, 6, EOS])
    alone = experienced([short], lambda row: torch.tensor([2.0]))[0]
    beside = experienced([short, long], lambda row: torch.tensor([2.0, 4.0]))[0]
    assert len(beside.advantages) == len(beside.returns) == 2
    assert beside.advantages.tolist() == pytest.approx(alone.advantages.tolist(), rel=1e-6)
    assert beside.returns.tolist() == pytest.approx(alone.returns.tolist(), rel=1e-6)


def test_an_answer_cut_short_pays_its_penalty_on_its_last_token() -> None:
    """Score 2, 1.5 off without EOS."""
    cut = sample([2, 3], [5, 6, 4])
    done = experienced([cut], lambda row: torch.tensor([2.0]), gamma=0.0, lam=0.0, missing_eos_penalty=1.5)[0]
    assert done.advantages.tolist() == pytest.approx([0, 0, 0.5], abs=1e-6)


def test_the_kl_cost_falls_on_the_token_that_strayed() -> None:
    """Token 5 was drawn at log-probability -log 7 + 1: k1 is 1 nat there, times 0.1."""
    old = np.asarray([1 - math.log(VOCABULARY), -math.log(VOCABULARY)], np.float32)
    strayed = replace(sample([2, 3], [5, EOS]), old_logprobs=old)
    done = experienced([strayed], lambda row: torch.tensor([2.0]), gamma=0.0, lam=0.0)[0]
    assert done.advantages.tolist() == pytest.approx([-0.1, 2], abs=1e-6)
