"""Cross-entropy, ranking, policy and value losses."""

import math

import pytest
import torch
from torch import Tensor

from rlhf.ops.losses import (
    cross_entropy,
    entropy_bonus,
    kl_loss,
    largest_ratio,
    policy_loss,
    ranking_loss,
    score_margins,
    value_loss,
)
from rlhf.ops.rewards import kl_estimate

NAN = float("nan")
TOLERANCE = {"rtol": 1e-6, "atol": 1e-7}


def _softplus(x: float) -> float:
    """-log sigmoid(-x)"""
    return math.log1p(math.exp(x))


# ---------------------------------------------------------------------------------------------- cross-entropy


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]).log()
    logits[2] = NAN  # weight 0
    logits.requires_grad_()
    out = cross_entropy(logits, torch.tensor([0, 1, -100]), torch.tensor([1.0, 0.5, 0.0]), torch.tensor(4.0))
    # (1 * ln 2 + .5 * ln 4/3) / 4
    assert out.loss.item() == pytest.approx((math.log(2) + 0.5 * math.log(4 / 3)) / 4, rel=1e-6)
    assert out.nll.tolist() == pytest.approx([math.log(2), math.log(4 / 3), 0.0], rel=1e-6)
    assert not out.nll.requires_grad
    out.loss.backward()
    # weight / 4 * (p - onehot): 1/4 * [-.5, .5], 1/8 * [.25, -.25], and nothing where the weight is 0
    expected = torch.tensor([[-0.125, 0.125], [0.03125, -0.03125], [0.0, 0.0]])
    torch.testing.assert_close(logits.grad, expected, **TOLERANCE)


def test_cross_entropy_micro_batches_share_the_denominator():
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(9, 5), torch.randint(5, (9,)), torch.rand(9)
    weights[[2, 7]] = 0
    whole, parts = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    total = cross_entropy(whole, labels, weights, weights.sum())
    total.loss.backward()
    pieces = []
    for rows in (slice(0, 1), slice(1, 6), slice(6, 9)):
        pieces.append(cross_entropy(parts[rows], labels[rows], weights[rows], weights.sum()))
        pieces[-1].loss.backward()
    torch.testing.assert_close(sum(piece.loss for piece in pieces), total.loss, **TOLERANCE)
    torch.testing.assert_close(parts.grad, whole.grad, **TOLERANCE)
    torch.testing.assert_close(torch.cat([piece.nll for piece in pieces]), total.nll, **TOLERANCE)


def test_cross_entropy_of_a_zero_loss_micro_batch():
    logits = torch.full((2, 3), NAN, requires_grad=True)
    out = cross_entropy(logits, torch.zeros(2, dtype=torch.int64), torch.zeros(2), torch.tensor(5))
    out.loss.backward()
    assert (out.loss.item(), out.nll.tolist()) == (0.0, [0.0, 0.0])
    assert torch.equal(logits.grad, torch.zeros(2, 3))


@pytest.mark.parametrize("label", [-100, 3])
def test_counted_labels_must_be_in_the_vocabulary(label):
    with pytest.raises(ValueError, match=r"outside \[0, 3\)"):
        cross_entropy(torch.zeros(1, 3), torch.tensor([label]), torch.ones(1), torch.tensor(1))


def test_cross_entropy_arguments_are_checked():
    logits, labels, weights, count = torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2), torch.tensor(2)
    with pytest.raises(ValueError, match=r"expected \[N, V\], \[N\], \[N\]"):
        cross_entropy(logits, labels[:1], weights[:1], count)
    with pytest.raises(ValueError, match=r"expected \[N, V\], \[N\], \[N\]"):
        cross_entropy(logits, labels, weights[:1], count)
    with pytest.raises(ValueError, match=r"expected \[N, V\], \[N\], \[N\]"):
        cross_entropy(torch.zeros(2, 3, 4), labels, weights, count)
    with pytest.raises(ValueError, match="denominator has shape"):
        cross_entropy(logits, labels, weights, weights)
    for bad in (-1.0, NAN):
        with pytest.raises(ValueError, match="weights hold a negative value or NaN"):
            cross_entropy(logits, labels, torch.tensor([1.0, bad]), count)


# ---------------------------------------------------------------------------------------------------- ranking


def _pair(better: float, worse: float) -> tuple[Tensor, Tensor, Tensor]:
    scores = torch.tensor([[worse, better, NAN]], requires_grad=True)  # the better one second, then padding
    return scores, torch.tensor([[2, 1, 0]]), torch.tensor([[True, True, False]])


@pytest.mark.parametrize(("better", "worse", "correct"), [(2.0, 0.5, 1.0), (0.5, 2.0, 0.0), (1.0, 1.0, 0.5)])
def test_one_pair_by_hand(better, worse, correct):
    scores, ranks, mask = _pair(better, worse)
    out = ranking_loss(scores, ranks, mask, torch.tensor(2))
    gap = better - worse
    # -log sigmoid(gap), over 2 rankings
    assert out.loss.item() == pytest.approx(_softplus(-gap) / 2, rel=1e-6)
    assert (out.num_correct.item(), out.num_pairs.item(), out.margin_sum.item()) == (correct, 1, gap)
    assert not out.margin_sum.requires_grad
    out.loss.backward()
    slope = -1 / (1 + math.exp(gap)) / 2  # d/d gap of -log sigmoid(gap) / 2 = -sigmoid(-gap) / 2
    torch.testing.assert_close(scores.grad, torch.tensor([[-slope, slope, 0.0]]), **TOLERANCE)


def test_margin_smoothing_and_centering_by_hand():
    scores, ranks, mask = _pair(2.0, 0.5)
    margins = torch.full((1, 3, 3), NAN)
    margins[0, 1, 0] = 0.7  # [better, worse]
    options = {"margins": margins, "label_smoothing": 0.1, "centering": 0.01}
    out = ranking_loss(scores, ranks, mask, torch.tensor(1), **options)
    # d = 2 - .5 - .7 = .8; .9 * -log sigmoid(.8) + .1 * -log sigmoid(-.8) + .01 * 2.5^2
    expected = 0.9 * _softplus(-0.8) + 0.1 * _softplus(0.8) + 0.0625
    assert out.loss.item() == pytest.approx(expected, rel=1e-6)
    assert out.margin_sum.item() == pytest.approx(1.5)  # without the margin
    out.loss.backward()
    sigmoid = 1 / (1 + math.exp(-0.8))
    slope = -0.9 * (1 - sigmoid) + 0.1 * sigmoid  # of d; centering adds 2 * .01 * 2.5 = .05 to each
    torch.testing.assert_close(scores.grad, torch.tensor([[0.05 - slope, 0.05 + slope, 0.0]]), **TOLERANCE)


def _naive(
    scores: Tensor, ranks: Tensor, mask: Tensor, margins: Tensor, smoothing: float, centering: float
) -> tuple[float, float, int, float]:
    loss, correct, num_pairs, gaps = 0.0, 0.0, 0, 0.0
    for b in range(scores.shape[0]):
        costs = []
        for i in range(scores.shape[1]):
            for j in range(scores.shape[1]):
                if not (mask[b, i] and mask[b, j] and ranks[b, i] < ranks[b, j]):
                    continue
                r_i, r_j = scores[b, i].item(), scores[b, j].item()
                d = r_i - r_j - margins[b, i, j].item()
                cost = (1 - smoothing) * _softplus(-d) + smoothing * _softplus(d)
                costs.append(cost + centering * (r_i + r_j) ** 2)
                correct += 1.0 if r_i > r_j else 0.5 if r_i == r_j else 0.0
                gaps += r_i - r_j
        loss += sum(costs) / len(costs) if costs else 0.0
        num_pairs += len(costs)
    return loss, correct, num_pairs, gaps


def _many() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    scores = torch.randn(8, 5, dtype=torch.float64)
    scores[0, 0] = scores[0, 1]
    mask = torch.rand(8, 5) < 0.7
    mask[0], mask[7] = True, False
    ranks = torch.randint(1, 5, (8, 5))
    ranks[0], ranks[6] = torch.tensor([1, 2, 3, 4, 5]), 1  # row 6 is one tie, row 7 is empty
    return scores.where(mask, NAN), ranks, mask, torch.rand(8, 5, 5, dtype=torch.float64)


def test_margins_from_scores_by_hand():
    """Scores 27, 11 and one that is not known, at 0.1: only 27 over 11 has a margin, 1.6."""
    scores, mask = torch.tensor([[27.0, 11.0, NAN], [NAN, NAN, NAN]]), torch.tensor([[True, True, False], [False] * 3])
    margins = score_margins(scores, mask, scale=0.1)
    expected = torch.zeros(2, 3, 3)
    expected[0, 0, 1] = 1.6
    torch.testing.assert_close(margins, expected, **TOLERANCE)
    assert score_margins(scores[:, :2].flip(1), mask[:, :2], scale=1.0)[0].tolist() == [[0, 0], [16, 0]]


def test_ranking_matches_the_naive_loop():
    scores, ranks, mask, margins = _many()
    loss, correct, num_pairs, gaps = _naive(scores, ranks, mask, margins, 0.05, 0.02)
    options = {"margins": margins, "label_smoothing": 0.05, "centering": 0.02}
    out = ranking_loss(scores, ranks, mask, torch.tensor(6), **options)
    assert out.loss.item() == pytest.approx(loss / 6, rel=1e-9)
    assert (out.num_correct.item(), out.num_pairs.item()) == (correct, num_pairs)
    assert out.margin_sum.item() == pytest.approx(gaps, rel=1e-9)


def test_ranking_gradcheck():
    scores, ranks, mask, margins = _many()
    scores = scores.where(mask, 0).requires_grad_()

    def loss(leaf: Tensor) -> Tensor:
        options = {"margins": margins, "label_smoothing": 0.05, "centering": 0.02}
        return ranking_loss(leaf, ranks, mask, torch.tensor(6), **options).loss

    assert torch.autograd.gradcheck(loss, (scores,))


def test_a_prompt_counts_once_however_many_pairs_it_has():
    # three equal scores, all ranked apart: 3 pairs of ln 2 each, mean ln 2; the second prompt has one pair
    scores, ranks = torch.zeros(2, 3), torch.tensor([[1, 2, 3], [1, 2, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    out = ranking_loss(scores, ranks, mask, torch.tensor(2))
    assert out.loss.item() == pytest.approx(math.log(2), rel=1e-6)  # (ln 2 + ln 2) / 2
    assert out.num_pairs.item() == 4


@pytest.mark.parametrize("mask", [[True, True], [True, False], [False, False]])
def test_a_prompt_without_an_untied_pair_adds_nothing(mask):
    counted = torch.tensor([mask])
    scores = torch.tensor([[3.0, -1.0]]).where(counted, NAN).requires_grad_()
    out = ranking_loss(scores, torch.tensor([[1, 1]]), counted, torch.tensor(1), centering=1.0)
    out.loss.backward()
    assert [field.item() for field in out] == [0.0, 0.0, 0, 0.0]
    assert torch.equal(scores.grad, torch.zeros(1, 2))


def test_ranking_does_not_depend_on_padding():
    torch.manual_seed(2)
    scores, ranks = torch.randn(3, 4), torch.randint(1, 4, (3, 4))
    mask = torch.ones(3, 4, dtype=torch.bool)
    plain, padded = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    short = ranking_loss(plain, ranks, mask, torch.tensor(3), centering=0.1)
    wide = ranking_loss(
        torch.cat([torch.full((3, 2), NAN), padded, torch.full((3, 1), NAN)], 1),
        torch.nn.functional.pad(ranks, (2, 1), value=99),
        torch.nn.functional.pad(mask, (2, 1)),
        torch.tensor(3),
        centering=0.1,
    )
    for left, right in zip(short, wide, strict=True):
        torch.testing.assert_close(left, right, **TOLERANCE)
    short.loss.backward()
    wide.loss.backward()
    torch.testing.assert_close(plain.grad, padded.grad, **TOLERANCE)


def test_ranking_micro_batches_share_the_denominator():
    scores, ranks, mask, margins = _many()
    whole, parts = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    total = ranking_loss(whole, ranks, mask, torch.tensor(6), margins=margins)
    total.loss.backward()
    losses = []
    for rows in (slice(0, 3), slice(3, 4), slice(4, 8)):
        piece = ranking_loss(parts[rows], ranks[rows], mask[rows], torch.tensor(6), margins=margins[rows])
        piece.loss.backward()
        losses.append(piece.loss)
    torch.testing.assert_close(sum(losses), total.loss, **TOLERANCE)
    torch.testing.assert_close(parts.grad, whole.grad, **TOLERANCE)


def test_ranking_of_half_precision_scores_is_float32():
    scores = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16)
    out = ranking_loss(scores, torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool), torch.tensor(1))
    assert out.loss.dtype == torch.float32
    assert out.loss.item() == pytest.approx(_softplus(-1.0), rel=1e-6)


def test_ranking_survives_large_gaps():
    scores, ranks, mask = _pair(-500.0, 500.0)
    out = ranking_loss(scores, ranks, mask, torch.tensor(1))
    assert out.loss.item() == pytest.approx(1000.0)  # -log sigmoid(-1000)
    out.loss.backward()
    assert scores.grad.tolist() == [[1.0, -1.0, 0.0]]


def test_ranking_arguments_are_checked():
    scores, ranks, one = torch.zeros(1, 2), torch.tensor([[1, 2]]), torch.tensor(1)
    mask = torch.ones(1, 2, dtype=torch.bool)
    for bad in (
        lambda: ranking_loss(scores[0], ranks[0], mask[0], one),
        lambda: ranking_loss(scores, ranks, mask.int(), one),
        lambda: ranking_loss(scores[:, :1], ranks, mask, one),
        lambda: ranking_loss(scores, ranks[:, :1], mask, one),
        lambda: ranking_loss(scores, ranks, mask, torch.ones(2)),
        lambda: ranking_loss(scores, ranks.float(), mask, one),
        lambda: ranking_loss(scores, ranks, mask, one, margins=torch.zeros(1, 2)),
        lambda: ranking_loss(scores, ranks, mask, one, label_smoothing=0.5),
        lambda: ranking_loss(scores, ranks, mask, one, label_smoothing=-0.1),
        lambda: ranking_loss(scores, ranks, mask, one, centering=-0.1),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()


# ----------------------------------------------------------------------------------------------------- policy


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "slope", "clipped"),
    [
        (0.0, 2.0, -2.0, -2.0, 0),  # ratio 1: plain policy gradient, d/d logprob = -ratio * A
        (0.1, 2.0, -2 * math.exp(0.1), -2 * math.exp(0.1), 0),  # ratio 1.105, inside the clip
        (1.0, 1.0, -1.2, 0.0, 1),  # ratio e, A > 0: capped at 1 + clip
        (-1.0, 1.0, -math.exp(-1), -math.exp(-1), 0),  # ratio 1/e, A > 0: not capped
        (1.0, -1.0, math.e, math.e, 0),  # ratio e, A < 0: not capped
        (-1.0, -1.0, 0.8, 0.0, 1),  # ratio 1/e, A < 0: capped at 1 - clip
    ],
)
def test_policy_loss_by_hand(log_ratio, advantage, loss, slope, clipped):
    logprobs = torch.tensor([[log_ratio - 3, NAN]], requires_grad=True)  # the second token is padding
    old_logprobs, advantages = torch.tensor([[-3.0, NAN]]), torch.tensor([[advantage, NAN]])
    mask = torch.tensor([[True, False]])
    out = policy_loss(logprobs, old_logprobs, advantages, mask, torch.tensor(2), clip=0.2)
    assert out.loss.item() == pytest.approx(loss / 2, rel=1e-6)  # 2 tokens in the step
    assert out.clip_fraction.item() == clipped / 2
    # k3 of KL(old || new): ratio - 1 - log ratio
    assert out.approx_kl.item() == pytest.approx((math.exp(log_ratio) - 1 - log_ratio) / 2, rel=1e-5)
    assert not out.approx_kl.requires_grad
    assert not out.clip_fraction.requires_grad
    out.loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[slope / 2, 0.0]]), **TOLERANCE)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "slope", "low", "high", "dual"),
    [
        (math.log(1.25), 2.0, -2.5, -2.5, 0, 0, 0),  # above 1 + clip, below 1 + clip_high: not held
        (math.log(1.5), 2.0, -2.56, 0.0, 0, 1, 0),  # held at 1 + clip_high = 1.28
        (math.log(0.75), -2.0, 1.6, 0.0, 1, 0, 0),  # held at 1 - clip = 0.8, whatever clip_high is
        (math.log(0.75), 2.0, -1.5, -1.5, 0, 0, 0),  # below, A > 0: not held
        (math.log(2.5), -2.0, 5.0, 5.0, 0, 0, 0),  # above, A < 0, below the dual clip: not held
        (math.log(4.0), -2.0, 6.0, 0.0, 0, 0, 1),  # held at dual_clip = 3
        (math.log(4.0), 2.0, -2.56, 0.0, 0, 1, 0),  # the dual clip holds no positive advantage
    ],
)
def test_clip_higher_and_dual_clip_by_hand(log_ratio, advantage, loss, slope, low, high, dual):
    logprobs = torch.tensor([[log_ratio - 3, NAN]], requires_grad=True)
    old_logprobs, advantages = torch.tensor([[-3.0, NAN]]), torch.tensor([[advantage, NAN]])
    bounds = {"clip": 0.2, "clip_high": 0.28, "dual_clip": 3.0}
    out = policy_loss(logprobs, old_logprobs, advantages, torch.tensor([[True, False]]), torch.tensor(2), **bounds)
    assert out.loss.item() == pytest.approx(loss / 2, rel=1e-5)
    fractions = (out.low_clip_fraction, out.high_clip_fraction, out.clip_fraction, out.dual_clip_fraction)
    assert [each.item() for each in fractions] == [low / 2, high / 2, (low + high) / 2, dual / 2]
    assert not any(each.requires_grad for each in fractions)
    out.loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[slope / 2, 0.0]]), rtol=1e-5, atol=1e-6)


def test_the_largest_ratio_is_that_of_a_counted_token():
    logprobs, old = torch.tensor([[-1.0, -2.0, 9.0]]), torch.tensor([[-1.5, -1.0, -9.0]])
    mask = torch.tensor([[True, True, False]])
    assert largest_ratio(logprobs, old, mask) == pytest.approx(math.exp(0.5))  # e^0.5 and e^-1
    assert largest_ratio(logprobs, old, torch.zeros_like(mask)) == 0


@pytest.mark.parametrize(
    ("kind", "loss", "slope"),
    [
        ("k2", 0.1 * 0.5**2 / 2 / 4, 0.1 * 0.5 / 4),  # d^2 / 2, slope d
        ("k3", 0.1 * (math.exp(-0.5) - 1 + 0.5) / 4, 0.1 * (1 - math.exp(-0.5)) / 4),
    ],
)
def test_kl_in_the_loss_by_hand(kind, loss, slope):
    """d = 0.5 nats on one token of the step's four, coefficient 0.1."""
    logprobs = torch.tensor([[-1.0, NAN]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    kl = kl_estimate(logprobs, torch.tensor([[-1.5, NAN]]), mask, kind=kind)
    found = kl_loss(kl, mask, torch.tensor(4.0), coefficient=0.1)
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-5)
    assert logprobs.grad.flatten().tolist() == pytest.approx([slope, 0.0], rel=1e-5)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_what_each_kl_estimate_teaches_in_the_mean(kind):
    """Over all tokens of the policy: k2's gradient is that of the KL itself, k3's that of the reverse KL, k1's is 0."""
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-0.5, 0.4, 0.1], dtype=torch.float64).log_softmax(0)
    mask = torch.ones(3, dtype=torch.bool)
    logprobs = logits.log_softmax(0)
    weights = logprobs.detach().exp()
    (weights * kl_estimate(logprobs, reference, mask, kind=kind)).sum().backward()
    policy, other = weights, reference.exp()
    divergence = (policy * (policy / other).log()).sum()
    expected = {
        "k1": torch.zeros(3, dtype=torch.float64),
        "k2": policy * ((policy / other).log() - divergence),  # d KL(policy || reference) / d logits
        "k3": policy - other,  # d KL(reference || policy) / d logits
    }[kind]
    torch.testing.assert_close(logits.grad, expected, rtol=1e-9, atol=1e-12)


def test_a_negative_kl_coefficient_is_refused():
    with pytest.raises(ValueError, match="expected >= 0"):
        kl_loss(torch.zeros(1), torch.ones(1, dtype=torch.bool), torch.tensor(1.0), coefficient=-0.1)


def test_the_entropy_bonus_by_hand():
    """Entropies 1 and 3 of three tokens in the step, padding left aside: 0.5 * 4 / 3, slope 0.5 / 3."""
    entropy = torch.tensor([1.0, 3.0, NAN], requires_grad=True)
    mask = torch.tensor([True, True, False])
    bonus = entropy_bonus(entropy, mask, torch.tensor(3.0), weight=0.5)
    assert bonus.item() == pytest.approx(2 / 3, rel=1e-6)
    bonus.backward()
    torch.testing.assert_close(entropy.grad, torch.tensor([1 / 6, 1 / 6, 0.0]), **TOLERANCE)
    with pytest.raises(ValueError, match="weight = -1"):
        entropy_bonus(entropy, mask, torch.tensor(3.0), weight=-1.0)


def test_the_eos_token_learns_where_pad_equals_eos():
    eos = 2  # and the padding id
    tokens = torch.tensor([[7, 8, eos, eos], [eos, eos, eos, eos]])
    mask = torch.arange(4) <= (tokens == eos).int().argmax(1)[:, None]
    logprobs = torch.full((2, 4), -1.0, requires_grad=True)
    ones = torch.ones(2, 4)
    policy_loss(logprobs, -ones, ones, mask, mask.sum(), clip=0.2).loss.backward()
    # 4 tokens, ratio 1, advantage 1: -1/4 each up to and with the first EOS, nothing after it
    assert logprobs.grad.tolist() == [[-0.25, -0.25, -0.25, 0.0], [-0.25, 0.0, 0.0, 0.0]]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("loss", ["policy", "value"])
def test_padding_does_not_trip_anomaly_detection(loss):
    leaf = torch.tensor([[-1.0, NAN]], requires_grad=True)
    other, mask, one = torch.tensor([[-1.1, NAN]]), torch.tensor([[True, False]]), torch.tensor(1)
    with torch.autograd.detect_anomaly():
        if loss == "policy":
            policy_loss(leaf, other, other, mask, one, clip=0.2).loss.backward()
        else:
            value_loss(leaf, other, other, mask, one, clip=0.2).loss.backward()
    assert leaf.grad.isfinite().all()


def _tokens(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    mask = torch.rand(4, 6) < 0.7
    first, second, third = (torch.randn(4, 6, dtype=dtype).where(mask, NAN) for _ in range(3))
    return first, second, third, mask


def test_policy_loss_micro_batches_share_the_denominator():
    logprobs, old_logprobs, advantages, mask = _tokens()
    whole, parts = logprobs.clone().requires_grad_(), logprobs.clone().requires_grad_()
    total = policy_loss(whole, old_logprobs, advantages, mask, mask.sum(), clip=0.2)
    total.loss.backward()
    pieces = []
    for rows in (slice(0, 1), slice(1, 4)):
        each = (parts[rows], old_logprobs[rows], advantages[rows], mask[rows])
        pieces.append(policy_loss(*each, mask.sum(), clip=0.2))
        pieces[-1].loss.backward()
    for name in total._fields:
        summed = sum(getattr(piece, name) for piece in pieces)
        torch.testing.assert_close(summed, getattr(total, name), **TOLERANCE)
    torch.testing.assert_close(parts.grad, whole.grad, **TOLERANCE)


def test_policy_loss_gradcheck_on_packed_tokens():
    logprobs, old_logprobs, advantages, mask = (each.flatten() for each in _tokens(torch.float64))
    leaf = logprobs.where(mask, 0).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: policy_loss(x, old_logprobs, advantages, mask, mask.sum(), clip=0.2).loss, (leaf,)
    )


def test_approx_kl_keeps_its_digits_near_zero():
    mask = torch.ones(1, dtype=torch.bool)
    zero = torch.zeros(1)
    out = policy_loss(torch.tensor([1e-3]), zero, zero, mask, torch.tensor(1), clip=0.2)
    # d^2/2 + d^3/6. Two float32 near 1e-3 are subtracted, hence 1e-3; exp - 1 - d would be off by a tenth.
    assert out.approx_kl.item() == pytest.approx(5.001667e-7, rel=1e-3)


def test_policy_arguments_are_checked():
    ones, mask, two = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.tensor(2)
    for bad in (
        lambda: policy_loss(ones[:, :1], ones, ones, mask, two, clip=0.2),
        lambda: policy_loss(ones, ones[:, :1], ones, mask, two, clip=0.2),
        lambda: policy_loss(ones, ones, ones[:, :1], mask, two, clip=0.2),
        lambda: policy_loss(ones, ones, ones, ones, two, clip=0.2),
        lambda: policy_loss(ones, ones, ones, mask, mask.sum(1), clip=0.2),
        lambda: policy_loss(ones, ones, ones, mask, two, clip=0.0),
        lambda: policy_loss(ones, ones, ones, mask, two, clip=0.2, clip_high=0.0),
        lambda: policy_loss(ones, ones, ones, mask, two, clip=0.2, dual_clip=1.0),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()


# ------------------------------------------------------------------------------------------------------ value


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss", "slope", "clipped"),
    [
        (3.0, 0.0, 1.0, None, 2.0, 2.0, 0),  # (3-1)^2 / 2, slope v - R
        (0.1, 0.0, 1.0, 0.2, 0.405, -0.9, 0),  # inside the clip: (.1-1)^2 / 2
        (3.0, 0.0, 1.0, 0.2, 2.0, 2.0, 0),  # held at .2: (.2-1)^2 = .64 < 4, so the plain one
        (0.9, 0.0, 1.0, 0.2, 0.32, 0.0, 1),  # held at .2: .64 > .01, so the clipped one, without slope
        (-0.9, 0.0, -1.0, 0.2, 0.32, 0.0, 1),  # the same below: held at -.2
        (-3.0, 0.0, 1.0, 0.2, 8.0, -4.0, 0),  # held at -.2: 1.44 < 16
        (1.9, 1.0, 2.0, 0.2, 0.32, 0.0, 1),  # held at 1.0 + .2: .64 > .01
    ],
)
def test_value_loss_by_hand(value, old, target, clip, loss, slope, clipped):
    values = torch.tensor([[NAN, value]], requires_grad=True)  # the first token is padding
    out = value_loss(
        values,
        torch.tensor([[NAN, old]]),
        torch.tensor([[NAN, target]]),
        torch.tensor([[False, True]]),
        torch.tensor(4),
        clip=clip,
    )
    assert out.loss.item() == pytest.approx(loss / 4, rel=1e-6)  # 4 tokens in the step
    assert out.clip_fraction.item() == clipped / 4
    out.loss.backward()
    torch.testing.assert_close(values.grad, torch.tensor([[0.0, slope / 4]]), **TOLERANCE)


def test_values_inside_the_clip_are_not_counted_as_clipped():
    # In float32 old + (value - old) is not value when value is much smaller; that is not clipping.
    torch.manual_seed(4)
    old, values, returns = 0.15 * torch.rand(500), 1e-3 * torch.rand(500), 1e-2 * torch.randn(500)
    mask = torch.ones(500, dtype=torch.bool)
    assert value_loss(values, old, returns, mask, torch.tensor(500), clip=0.2).clip_fraction.item() == 0


@pytest.mark.parametrize("clip", [None, 0.3])
def test_value_loss_micro_batches_share_the_denominator(clip):
    values, old_values, returns, mask = _tokens()
    whole, parts = values.clone().requires_grad_(), values.clone().requires_grad_()
    total = value_loss(whole, old_values, returns, mask, mask.sum(), clip=clip)
    total.loss.backward()
    pieces = []
    for rows in (slice(0, 3), slice(3, 4)):
        each = (parts[rows], old_values[rows], returns[rows], mask[rows])
        pieces.append(value_loss(*each, mask.sum(), clip=clip))
        pieces[-1].loss.backward()
    for name in total._fields:
        summed = sum(getattr(piece, name) for piece in pieces)
        torch.testing.assert_close(summed, getattr(total, name), **TOLERANCE)
    torch.testing.assert_close(parts.grad, whole.grad, **TOLERANCE)


@pytest.mark.parametrize("clip", [None, 0.3])
def test_value_loss_gradcheck(clip):
    values, old_values, returns, mask = _tokens(torch.float64)
    leaf = values.where(mask, 0).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: value_loss(x, old_values, returns, mask, mask.sum(), clip=clip).loss, (leaf,)
    )


def test_value_arguments_are_checked():
    ones, mask, two = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.tensor(2)
    for bad in (
        lambda: value_loss(ones[:, :1], ones, ones, mask, two, clip=None),
        lambda: value_loss(ones, ones[:, :1], ones, mask, two, clip=None),
        lambda: value_loss(ones, ones, ones[:, :1], mask, two, clip=None),
        lambda: value_loss(ones, ones, ones, ones, two, clip=None),
        lambda: value_loss(ones, ones, ones, mask, mask.sum(1), clip=None),
        lambda: value_loss(ones, ones, ones, mask, two, clip=0.0),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()
