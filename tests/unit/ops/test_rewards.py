"""KL estimates and token rewards."""

import math

import pytest
import torch

from rlhf.ops.rewards import kl_estimate, overlong_rewards, token_rewards

NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("k1", [0.5, -1.0]),
        ("k2", [0.125, 0.5]),  # .25 / 2, 1 / 2
        ("k3", [math.exp(-0.5) - 1 + 0.5, math.e - 1 - 1.0]),  # exp(-d) - 1 + d
    ],
)
def test_kl_by_hand(kind, expected):
    logprobs = torch.tensor([[-1.0, -3.0, NAN]], requires_grad=True)
    reference = torch.tensor([[-1.5, -2.0, NAN]])  # d = .5, -1
    mask = torch.tensor([[True, True, False]])
    out = kl_estimate(logprobs, reference, mask, kind=kind)
    assert out[0].tolist() == pytest.approx([*expected, 0.0], rel=1e-6)
    out.sum().backward()
    assert logprobs.grad[0, 2] == 0
    assert logprobs.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_unbiased_estimates_average_to_the_kl(kind):
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    exact = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    estimate = kl_estimate(policy.log(), reference.log(), torch.ones(3, dtype=torch.bool), kind=kind)
    assert (policy * estimate).sum().item() == pytest.approx(exact, rel=1e-5)


def test_k3_keeps_its_digits_near_zero():
    out = kl_estimate(torch.tensor([1e-3]), torch.zeros(1), torch.ones(1, dtype=torch.bool), kind="k3")
    # d^2/2 - d^3/6. Two float32 near 1e-3 are subtracted, hence 1e-3; exp - 1 + d would be off by a tenth.
    assert out.item() == pytest.approx(4.998334e-7, rel=1e-3)


def test_unknown_kind_raises():
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="kind = 'k4'"):
        kl_estimate(one, one, one == 0, kind="k4")


def _rewards(scores, mask, finished, kl=None, **options):
    mask = torch.tensor(mask)
    kl = torch.zeros(mask.shape) if kl is None else torch.tensor(kl)
    settings = {"kl_coefficient": 0.1, "score_clip": None, "missing_eos_penalty": 0.0} | options
    return token_rewards(torch.tensor(scores), kl, mask, torch.tensor(finished), **settings)


def test_score_lands_on_the_sampled_eos_where_pad_equals_eos():
    eos = 2  # and the padding id
    tokens = torch.tensor([[7, 8, eos, eos, eos], [7, eos, eos, eos, eos]])
    first_eos = (tokens == eos).int().argmax(1)
    mask = torch.arange(5) <= first_eos[:, None]
    out = _rewards([3.0, -4.0], mask.tolist(), [True, True])
    assert out.tolist() == [[0, 0, 3, 0, 0], [0, -4, 0, 0, 0]]


def test_token_rewards_by_hand():
    out = _rewards(
        [2.0, 1.0],
        [[True, True, False], [True, True, True]],
        [True, True],
        kl=[[1.0, -2.0, NAN], [0.5, 0.0, 3.0]],
    )
    # -.1 * 1, -.1 * -2 + 2, padding; -.1 * .5, 0, -.1 * 3 + 1
    assert out[0].tolist() == pytest.approx([-0.1, 2.2, 0.0])
    assert out[1].tolist() == pytest.approx([-0.05, 0.0, 0.7])


def test_clip_comes_before_the_eos_penalty():
    mask = [[True]] * 5
    out = _rewards(
        [9.0, -9.0, 9.0, -9.0, 1.0],
        mask,
        [True, True, False, False, False],
        score_clip=5.0,
        missing_eos_penalty=2.0,
    )
    assert out.flatten().tolist() == [5.0, -5.0, 3.0, -7.0, -1.0]  # 5, -5, 5 - 2, -5 - 2, 1 - 2


def test_no_clip():
    assert _rewards([1e6], [[True]], [True]).item() == 1e6


def test_empty_row_gets_zeros_whatever_it_holds():
    out = _rewards([NAN, 1.0], [[False, False], [True, False]], [False, True], kl=[[NAN, NAN], [0.0, NAN]])
    assert out.tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_last_token_of_a_left_padded_row():
    out = _rewards([3.0, 4.0], [[False, True, True, False], [False, False, False, True]], [True, True])
    assert out.tolist() == [[0, 0, 3, 0], [0, 0, 0, 4]]


@pytest.mark.parametrize("score_clip", [None, 5.0])
def test_gradient_skips_the_padding(score_clip):
    scores, kl = (
        torch.tensor([1.0, NAN], requires_grad=True),
        torch.tensor([[1.0, NAN], [NAN, NAN]], requires_grad=True),
    )
    mask, finished = torch.tensor([[True, False], [False, False]]), torch.tensor([True, False])
    token_rewards(
        scores, kl, mask, finished, kl_coefficient=0.5, score_clip=score_clip, missing_eos_penalty=1.0
    ).sum().backward()
    assert kl.grad.tolist() == [[-0.5, 0.0], [0.0, 0.0]]
    assert scores.grad.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "options",
    [{"score_clip": 0.0}, {"score_clip": -1.0}, {"kl_coefficient": -0.1}, {"missing_eos_penalty": -1.0}],
)
def test_settings_are_checked(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} = "):
        _rewards([1.0], [[True]], [True], **options)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="scores has shape"):
        _rewards([1.0, 2.0], [[True]], [True])
    with pytest.raises(ValueError, match="finished has shape"):
        _rewards([1.0], [[True]], [True, True])
    with pytest.raises(ValueError, match="finished has dtype"):
        _rewards([1.0], [[True]], [1])
    with pytest.raises(ValueError, match="kl has shape"):
        _rewards([1.0], [[True]], [True], kl=[[0.0, 0.0]])
    with pytest.raises(ValueError, match=r"expected \[B, T\]"):
        _rewards(1.0, [True], True)
    with pytest.raises(ValueError, match=r"expected torch\.bool"):
        _rewards([1.0], [[1]], [True])
    with pytest.raises(ValueError, match=r"expected torch\.bool"):
        kl_estimate(torch.zeros(1), torch.zeros(1), torch.ones(1), kind="k1")


def test_overlong_rewards_by_hand():
    """Limit 8, buffer 4, penalty 2: answers of up to 4 tokens are free, each token more costs 2 / 4."""
    lengths = torch.tensor([0, 3, 4, 5, 7, 8])
    mask = torch.arange(8) < lengths[:, None]
    out = overlong_rewards(mask, limit=8, buffer=4, penalty=2.0)
    assert out.sum(1).tolist() == [0.0, 0.0, 0.0, -0.5, -1.5, -2.0]
    assert (out != 0).nonzero().tolist() == [[3, 4], [4, 6], [5, 7]]  # on the last token


@pytest.mark.parametrize(
    ("options", "name"), [({"buffer": 0}, "buffer"), ({"buffer": 9}, "buffer"), ({"penalty": -1.0}, "penalty")]
)
def test_overlong_settings_are_checked(options, name):
    with pytest.raises(ValueError, match=f"{name} = "):
        overlong_rewards(torch.ones(1, 2, dtype=torch.bool), **{"limit": 8, "buffer": 4, "penalty": 1.0, **options})
    with pytest.raises(ValueError, match="expected \\[B, T\\]"):
        overlong_rewards(torch.ones(2, dtype=torch.bool), limit=8, buffer=4, penalty=1.0)
