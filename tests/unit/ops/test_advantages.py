"""Advantage estimators, with a critic and without."""

import pytest
import torch

from rlhf.ops.advantages import discounted_returns, explained_variance, gae, grpo, rloo

NAN = float("nan")


def test_gae_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 2.0, NAN]])
    values = torch.tensor([[0.5, 1.0, 1.5, NAN]])
    mask = torch.tensor([[True, True, True, False]])
    out = gae(rewards, values, mask, gamma=0.9, lam=0.5)
    # delta_2 = 2 + .9 * 0   - 1.5 = 0.5     A_2 = 0.5
    # delta_1 = 0 + .9 * 1.5 - 1.0 = 0.35    A_1 = 0.35 + .45 * 0.5   = 0.575
    # delta_0 = 1 + .9 * 1.0 - 0.5 = 1.4     A_0 = 1.4  + .45 * 0.575 = 1.65875
    assert out.advantages[0].tolist() == pytest.approx([1.65875, 0.575, 0.5, 0.0], rel=1e-6)
    assert out.returns[0].tolist() == pytest.approx([2.15875, 1.575, 2.0, 0.0], rel=1e-6)  # A + V


def test_gae_matches_the_double_sum():
    torch.manual_seed(0)
    gamma, lam, lengths = 0.97, 0.9, [5, 3, 0, 1]
    rewards, values = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    expected = torch.zeros(4, 5, dtype=torch.float64)
    for row, length in enumerate(lengths):
        following = [*values[row, :length].tolist(), 0.0]
        delta = [rewards[row, t].item() + gamma * following[t + 1] - following[t] for t in range(length)]
        for t in range(length):
            expected[row, t] = sum((gamma * lam) ** (u - t) * delta[u] for u in range(t, length))
    out = gae(rewards.where(mask, NAN), values.where(mask, NAN), mask, gamma=gamma, lam=lam)
    torch.testing.assert_close(out.advantages, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(out.returns, expected + values.where(mask, 0), rtol=1e-10, atol=1e-12)


def test_lam_one_gives_the_sum_of_rewards_to_come():
    mask = torch.ones(1, 3, dtype=torch.bool)
    out = gae(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[9.0, -3.0, 5.0]]), mask, gamma=1.0, lam=1.0)
    assert out.returns[0].tolist() == pytest.approx([7.0, 6.0, 4.0])  # 1+2+4, 2+4, 4, whatever the values


def test_more_padding_changes_nothing():
    torch.manual_seed(1)
    rewards, values, mask = (
        torch.randn(2, 4),
        torch.randn(2, 4),
        torch.tensor([[True] * 4, [True] * 2 + [False] * 2]),
    )
    short = gae(rewards, values, mask, gamma=1.0, lam=0.95)
    wide = torch.full((2, 3), NAN)
    padded = gae(
        torch.cat([rewards, wide], 1),
        torch.cat([values, wide], 1),
        torch.cat([mask, wide > 0], 1),
        gamma=1.0,
        lam=0.95,
    )
    assert torch.equal(padded.advantages[:, :4], short.advantages)
    assert padded.advantages[:, 4:].eq(0).all()
    assert padded.returns[:, 4:].eq(0).all()


def test_gradient_skips_the_padding():
    values = torch.tensor([[1.0, 2.0, NAN]], requires_grad=True)
    rewards = torch.tensor([[1.0, 2.0, NAN]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    gae(rewards, values, mask, gamma=1.0, lam=0.5).advantages.sum().backward()
    # A_1 = r1 - v1, A_0 = r0 + v1 - v0 + .5 (r1 - v1): d/dr = [1, 1.5], d/dv = [-1, -1 + 1 - .5]
    assert rewards.grad.tolist() == [[1.0, 1.5, 0.0]]
    assert values.grad.tolist() == [[-1.0, -0.5, 0.0]]


def test_half_precision_is_widened():
    mask = torch.ones(1, 2, dtype=torch.bool)
    half = torch.ones(1, 2, dtype=torch.bfloat16)
    assert gae(half, half, mask, gamma=1.0, lam=0.95).advantages.dtype == torch.float32


def test_no_columns():
    empty = torch.zeros(2, 0)
    assert gae(empty, empty, empty > 0, gamma=1.0, lam=1.0).advantages.shape == (2, 0)


@pytest.mark.parametrize("pattern", [[False, True, True], [True, False, True]])
def test_left_padding_and_holes_raise(pattern):
    mask = torch.tensor([[True, True, True], pattern])
    with pytest.raises(ValueError, match="row 1 is not one run"):
        gae(torch.zeros(2, 3), torch.zeros(2, 3), mask, gamma=1.0, lam=1.0)


@pytest.mark.parametrize("factors", [{"gamma": 1.1, "lam": 1.0}, {"gamma": 1.0, "lam": -0.1}])
def test_factors_are_checked(factors):
    with pytest.raises(ValueError, match="expected 0 <= "):
        gae(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), **factors)


def test_shapes_are_checked():
    mask = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="rewards has shape"):
        gae(torch.zeros(1, 1), torch.zeros(1, 2), mask, gamma=1.0, lam=1.0)
    with pytest.raises(ValueError, match="values has shape"):
        gae(torch.zeros(1, 2), torch.zeros(1, 1), mask, gamma=1.0, lam=1.0)
    with pytest.raises(ValueError, match=r"expected \[B, T\]"):
        gae(torch.zeros(2), torch.zeros(2), mask[0], gamma=1.0, lam=1.0)


def test_rloo_by_hand():
    # Row 0: 1 - (2 + 6)/2, 2 - (1 + 6)/2, 6 - (1 + 2)/2. Row 1: all alike.
    found = rloo(torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]]))
    assert found.flatten().tolist() == pytest.approx([-3.0, -1.5, 4.5, 0, 0, 0])


def test_rloo_of_two_is_their_difference():
    assert rloo(torch.tensor([[1.0, 4.0]])).tolist() == [[-3.0, 3.0]]


def test_grpo_by_hand():
    # Row 0: mean 3, deviations -2, -1, 3, sample variance (4 + 1 + 9) / 2 = 7. Row 1: nothing to tell apart.
    found = grpo(torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]]), epsilon=1e-12)
    root = 7**0.5
    assert found.flatten().tolist() == pytest.approx([-2 / root, -1 / root, 3 / root, 0, 0, 0], rel=1e-6)


def test_grpo_adds_its_epsilon_to_the_deviation():
    # Mean 0, deviation sqrt(2): 1 / (sqrt(2) + 0.5).
    assert grpo(torch.tensor([[1.0, -1.0]]), epsilon=0.5)[0, 0].item() == pytest.approx(1 / (2**0.5 + 0.5), rel=1e-6)


def test_groups_do_not_see_one_another():
    totals = torch.tensor([[1.0, 2.0], [100.0, 300.0]])
    for estimator in (rloo, grpo):
        torch.testing.assert_close(estimator(totals)[:1], estimator(totals[:1]))


@pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 2, 2)])
def test_a_group_of_one_is_refused(shape):
    for estimator in (rloo, grpo):
        with pytest.raises(ValueError, match="K >= 2"):
            estimator(torch.zeros(shape))
    with pytest.raises(ValueError, match="epsilon"):
        grpo(torch.zeros(1, 2), epsilon=0.0)


def test_discounted_returns_by_hand():
    rewards = torch.tensor([[1.0, -2.0, 4.0], [3.0, 1.0, NAN]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    # Row 0: 4; -2 + .5 * 4 = 0; 1 + .5 * 0 = 1. Row 1: 1; 3 + .5 * 1 = 3.5.
    found = discounted_returns(rewards, mask, gamma=0.5)
    assert found.tolist() == [[1.0, 0.0, 4.0], [3.5, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 6.0], 1.0),  # the returns themselves
        ([3.0, 3.0, 3.0], 0.0),  # a constant
        ([2.0, 3.0, 7.0], 1.0),  # off by one everywhere: a shift is not variance
        ([1.0, 4.0, 4.0], 1 - 8 / 14),  # residuals 0, -2, 2: squares 8 of the returns' 4 + 1 + 9
        ([6.0, 2.0, 1.0], 1 - 50 / 14),  # residuals -5, 0, 5
    ],
)
def test_explained_variance_by_hand(values, expected):
    """Returns 1, 2 and 6 with mean 3; padding holds NaN."""
    mask = torch.tensor([True, True, True, False])
    found = explained_variance(torch.tensor([*values, NAN]), torch.tensor([1.0, 2.0, 6.0, NAN]), mask)
    assert found == pytest.approx(expected, abs=1e-6)


def test_equal_returns_are_not_divided_by_zero():
    mask = torch.ones(2, dtype=torch.bool)
    assert explained_variance(torch.ones(2), torch.ones(2), mask) == 1.0
