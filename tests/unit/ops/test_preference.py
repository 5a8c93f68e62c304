"""Losses of preference optimisation by hand, and a ranking of K answers against its separate pairs."""

from __future__ import annotations

import itertools
from math import exp, log, log1p

import pytest
import torch
from torch import Tensor

from rlhf.ops.preference import (
    answer_logprobs,
    imitation_loss,
    implicit_rewards,
    ipo_loss,
    kto_loss,
    kto_reference_point,
    normalised_rewards,
    sigmoid_loss,
)

NAN = float("nan")
ONE = torch.tensor(1.0)


def table(*rows: list[float]) -> Tensor:
    return torch.tensor(list(rows))


def sigmoid(value: float) -> float:
    return 1 / (1 + exp(-value))


def test_the_logprob_of_an_answer_is_the_sum_over_its_tokens() -> None:
    found = answer_logprobs(torch.tensor([-1.0, -2.0, -0.5, -4.0]), torch.tensor([0, 2, 0, 2]), 3)
    assert found.tolist() == [-1.5, 0.0, -6.0]
    in_half = answer_logprobs(torch.full((300,), -1.0, dtype=torch.bfloat16), torch.zeros(300, dtype=torch.int64), 1)
    assert in_half.tolist() == [-300.0]  # bfloat16 itself stops at -256
    with pytest.raises(ValueError, match="belongs to no answer of 0 to 1"):
        answer_logprobs(torch.tensor([-1.0]), torch.tensor([2]), 2)


def test_an_implicit_reward_is_beta_times_the_log_ratio() -> None:
    mask = torch.tensor([[True, True, False]])
    found = implicit_rewards(table([-3.0, -8.0, NAN]), table([-5.0, -7.0, NAN]), mask, beta=0.5)
    assert found.tolist() == [[1.0, -0.5, 0.0]]  # 0.5 * (-3 + 5), 0.5 * (-8 + 7)


def test_a_normalised_reward_is_beta_times_the_mean_of_a_token() -> None:
    mask = torch.tensor([[True, True, False]])
    found = normalised_rewards(table([-3.0, -8.0, NAN]), torch.tensor([[2, 4, 0]]), mask, beta=2.0)
    assert found.tolist() == [[-3.0, -4.0, 0.0]]  # 2 * -3 / 2, 2 * -8 / 4
    with pytest.raises(ValueError, match="has no tokens"):
        normalised_rewards(table([-3.0]), torch.tensor([[0]]), torch.tensor([[True]]), beta=2.0)


PAIR = torch.tensor([[1, 2]])
BOTH = torch.tensor([[True, True]])


@pytest.mark.parametrize(
    ("margin", "smoothing", "expected"),
    [
        (0.0, 0.0, log1p(exp(-1.5))),  # -log sigmoid(1 + 0.5)
        (0.0, 0.1, 0.9 * log1p(exp(-1.5)) + 0.1 * log1p(exp(1.5))),  # cDPO
        (2.0, 0.0, log1p(exp(0.5))),  # SimPO: -log sigmoid(1.5 - 2)
    ],
)
def test_sigmoid_loss_by_hand(margin: float, smoothing: float, expected: float) -> None:
    found = sigmoid_loss(table([1.0, -0.5]), PAIR, BOTH, ONE, margin=margin, smoothing=smoothing)
    assert found.loss.item() == pytest.approx(expected, rel=1e-6)
    sides = (found.chosen_sum, found.rejected_sum, found.num_chosen, found.num_rejected, found.num_correct)
    assert [float(each) for each in sides] == [1.0, -0.5, 1, 1, 1]  # rewards without the margin


def test_a_preference_that_is_wrong_costs_more_and_counts_as_wrong() -> None:
    found = sigmoid_loss(table([-0.5, 1.0]), PAIR, BOTH, ONE)
    assert found.loss.item() == pytest.approx(log1p(exp(1.5)), rel=1e-6)
    assert (float(found.num_correct), float(found.num_compared)) == (0.0, 1.0)
    equal = sigmoid_loss(table([0.0, 0.0]), PAIR, BOTH, ONE)
    assert equal.loss.item() == pytest.approx(log(2), rel=1e-6)
    assert float(equal.num_correct) == 0.5


def test_pairs_are_a_mean_in_their_prompt_and_then_over_prompts() -> None:
    """Three answers, the last two tied: two pairs, of d = 1 and d = 3. The second prompt has one pair of d = -1."""
    rewards, ranks = table([2.0, 1.0, -1.0], [0.0, 1.0, NAN]), torch.tensor([[1, 2, 2], [1, 2, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    found = sigmoid_loss(rewards, ranks, mask, torch.tensor(2.0))
    first, second = (log1p(exp(-1)) + log1p(exp(-3))) / 2, log1p(exp(1))
    assert found.loss.item() == pytest.approx((first + second) / 2, rel=1e-6)
    assert (float(found.chosen_sum), float(found.rejected_sum)) == (4.0, 1.0)  # 2 + 2 + 0, 1 - 1 + 1
    assert float(found.num_compared) == 3


def test_ipo_by_hand() -> None:
    """Log ratios 3 and 1 nats at beta 0.25: the gap of 2 should be 1 / (2 * 0.25) = 2, that of 5 is 3 too large."""
    right = ipo_loss(table([0.75, 0.25]), PAIR, BOTH, ONE, beta=0.25)
    assert right.loss.item() == pytest.approx(0.0, abs=1e-10)
    far = ipo_loss(table([1.0, -0.25]), PAIR, BOTH, ONE, beta=0.25)
    assert far.loss.item() == pytest.approx(9.0, rel=1e-6)
    wrong = ipo_loss(table([-0.25, 0.25]), PAIR, BOTH, torch.tensor(2.0), beta=0.25)
    assert wrong.loss.item() == pytest.approx((-2 - 2) ** 2 / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("good", "reward", "expected"),
    [
        (True, 0.5, 2.0 * (1 - sigmoid(0.5 - 0.3))),  # 0.1 * 3 nats is the reference point
        (False, 0.5, 0.5 * (1 - sigmoid(0.3 - 0.5))),
        (False, -1.0, 0.5 * (1 - sigmoid(0.3 + 1.0))),
    ],
)
def test_kto_by_hand(good: bool, reward: float, expected: float) -> None:
    rewards, marks = table([reward, NAN]), torch.tensor([[good, True]])
    mask, kl = torch.tensor([[True, False]]), torch.tensor(3.0)
    found = kto_loss(rewards, marks, mask, kl, torch.tensor(4.0), beta=0.1, good_weight=2.0, bad_weight=0.5)
    assert found.loss.item() == pytest.approx(expected / 4, rel=1e-6)
    assert float(found.num_correct) == float(good is (reward > 0.3))
    assert (float(found.num_chosen), float(found.num_rejected)) == ((1, 0) if good else (0, 1))
    assert float(found.chosen_sum if good else found.rejected_sum) == pytest.approx(reward)


def test_kto_moves_good_answers_up_bad_ones_down_and_no_reference_point() -> None:
    rewards = table([0.0, 0.0]).requires_grad_(True)
    kl = torch.tensor(0.0, requires_grad=True)
    kto_loss(rewards, torch.tensor([[True, False]]), BOTH, kl, ONE, beta=0.1).loss.backward()
    assert rewards.grad is not None
    assert rewards.grad.tolist() == [[-0.25, 0.25]]  # the slope of a sigmoid at 0
    assert kl.grad is None


def test_the_reference_point_is_a_mean_and_never_negative() -> None:
    assert kto_reference_point(3.0, 4) == 0.75
    assert kto_reference_point(-3.0, 4) == 0.0
    with pytest.raises(ValueError, match="no answer of another prompt"):
        kto_reference_point(0.0, 0)


def test_the_imitation_term_is_a_mean_over_tokens_of_the_best_answers() -> None:
    best = torch.tensor([[True, False], [True, True]])
    found = imitation_loss(table([-4.0, NAN], [-1.0, -3.0]), best, torch.tensor(16.0))
    assert found.item() == pytest.approx(8 / 16)


LOSSES = {
    "sigmoid": lambda *given: sigmoid_loss(*given, smoothing=0.1),
    "margin": lambda *given: sigmoid_loss(*given, margin=0.7),
    "ipo": lambda *given: ipo_loss(*given, beta=0.5),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_ranking_equals_its_separate_pairs(loss) -> None:
    """Loss and gradient of five answers with a tie, and of nine pairs that are each a row of two answers."""
    ranks = (2, 1, 3, 2, 4)
    torch.manual_seed(3)
    rewards = torch.randn(1, 5, dtype=torch.float64).requires_grad_(True)
    whole = loss(rewards, torch.tensor([ranks]), torch.ones(1, 5, dtype=torch.bool), ONE)
    (expected,) = torch.autograd.grad(whole.loss, rewards)
    pairs = [pair for pair in itertools.permutations(range(5), 2) if ranks[pair[0]] < ranks[pair[1]]]
    assert len(pairs) == 9
    rows = torch.stack([rewards[0, list(pair)] for pair in pairs])
    count = torch.tensor(float(len(pairs)))
    apart = loss(rows, PAIR.expand(9, 2), BOTH.expand(9, 2), count)
    (found,) = torch.autograd.grad(apart.loss, rewards)
    assert apart.loss.item() == pytest.approx(whole.loss.item(), rel=1e-10)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert float(expected.abs().min()) > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: implicit_rewards(table([1.0]), table([1.0]), torch.tensor([[True]]), beta=0.0), "beta = 0.0"),
        (lambda: sigmoid_loss(table([1.0, 0.0]), PAIR, BOTH, ONE, margin=-1.0), "margin = -1.0"),
        (lambda: sigmoid_loss(table([1.0, 0.0]), PAIR, BOTH, ONE, smoothing=0.5), "label_smoothing = 0.5"),
        (lambda: ipo_loss(table([1.0, 0.0]), PAIR, BOTH, ONE, beta=-1.0), "beta = -1.0"),
        (lambda: kto_loss(table([1.0, 0.0]), BOTH, BOTH, ONE, ONE, beta=0.1, bad_weight=-1.0), "bad_weight = -1.0"),
        (lambda: kto_loss(table([1.0, 0.0]), PAIR, BOTH, ONE, ONE, beta=0.1), "mask has dtype"),
        (lambda: imitation_loss(table([1.0, 0.0]), BOTH, table([1.0])), "expected a scalar"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
