"""The head and its cross-entropy in chunks: by hand, against autograd through whole logits, and its memory."""

import math

import pytest
import torch
from torch import Tensor, nn

from rlhf.ops.linear_cross_entropy import linear_cross_entropy

TOLERANCE = {"rtol": 1e-5, "atol": 1e-7}


def _problem(dtype: torch.dtype = torch.float32, bias: bool = True) -> dict[str, Tensor]:
    torch.manual_seed(0)
    weights = torch.rand(11)
    weights[[3, 8]] = 0
    return {
        "hidden": torch.randn(11, 6).to(dtype),
        "weight": torch.randn(17, 6).to(dtype),
        "bias": torch.randn(17).to(dtype) if bias else None,
        "labels": torch.randint(17, (11,)),
        "weights": weights,
    }


def _leaves(problem: dict[str, Tensor]) -> list[Tensor]:
    return [
        problem[name].clone().requires_grad_() for name in ("hidden", "weight", "bias") if problem[name] is not None
    ]


def test_by_hand():
    # logits: hidden [1, 0] with rows [ln 3, 0], [0, 5] gives (ln 3, 0): probabilities 3/4, 1/4
    hidden = torch.tensor([[1.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[math.log(3), 0.0], [0.0, 5.0]], requires_grad=True)
    out = linear_cross_entropy(hidden, weight, None, torch.tensor([1]), torch.tensor([2.0]), torch.tensor(8.0))
    assert out.nll.tolist() == pytest.approx([math.log(4)])
    assert out.loss.item() == pytest.approx(2 / 8 * math.log(4))
    (3 * out.loss).backward()
    # d loss / d logits = 3 * 2/8 * (3/4, 1/4 - 1) = (9/16, -9/16)
    assert hidden.grad.tolist()[0] == pytest.approx([9 / 16 * math.log(3), -9 / 16 * 5])
    assert weight.grad.flatten().tolist() == pytest.approx([9 / 16, 0.0, -9 / 16, 0.0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk_logits", [1, 17, 17 * 4, 17 * 100])
def test_equals_whole_logits_in_loss_and_gradients(chunk_logits, bias):
    problem = _problem(bias=bias)
    ours, plain = _leaves(problem), _leaves(problem)
    total = torch.tensor(7.5)
    out = linear_cross_entropy(
        ours[0], ours[1], ours[2] if bias else None, problem["labels"], problem["weights"], total,
        chunk_logits=chunk_logits,
    )  # fmt: skip
    logits = nn.functional.linear(plain[0], plain[1], plain[2] if bias else None)
    nll = nn.functional.cross_entropy(logits, problem["labels"], reduction="none")
    expected = (nll * problem["weights"]).sum() / total
    torch.testing.assert_close(out.loss, expected, **TOLERANCE)
    torch.testing.assert_close(out.nll, torch.where(problem["weights"] > 0, nll.detach(), 0), **TOLERANCE)
    (out.loss * 0.3).backward()
    (expected * 0.3).backward()
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, **TOLERANCE)


def test_extreme_logits_stay_finite():
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    hidden = torch.tensor([[300.0], [300.0]])
    out = linear_cross_entropy(hidden, weight, None, torch.tensor([0, 1]), torch.ones(2), torch.tensor(2.0))
    assert out.nll.tolist() == [0.0, 600.0]  # log(1 + e^-600) and 600 + log(1 + e^-600)
    out.loss.backward()
    assert weight.grad.flatten().tolist() == [150.0, -150.0]  # only the second token moves: (1 - 0) * 300 / 2


def test_a_frozen_head_gets_no_gradient_and_nothing_is_computed_for_inference():
    problem = _problem()
    hidden = problem["hidden"].clone().requires_grad_()
    rest = (problem["labels"], problem["weights"], torch.tensor(1.0))
    linear_cross_entropy(hidden, problem["weight"], None, *rest).loss.backward()
    assert hidden.grad.abs().sum() > 0
    assert problem["weight"].grad is None
    with torch.no_grad():
        out = linear_cross_entropy(hidden, problem["weight"].requires_grad_(), None, *rest)
    assert not out.loss.requires_grad


def test_half_precision_sums_the_weight_gradient_in_float32():
    # 512 tokens each add 2**-9 * 1/2 to one weight: in bfloat16 a running sum would stop growing at 1/4
    hidden = torch.ones(512, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    labels, weights = torch.zeros(512, dtype=torch.int64), torch.ones(512)
    out = linear_cross_entropy(hidden, weight, None, labels, weights, torch.tensor(512.0), chunk_logits=2)
    out.loss.backward()
    assert weight.grad.dtype == torch.bfloat16
    assert weight.grad.flatten().tolist() == pytest.approx([-0.5, 0.5])


def test_whole_logits_are_never_held():
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                seen.append(result.numel())
            return result

    hidden, weight = torch.randn(64, 4, requires_grad=True), torch.randn(100, 4, requires_grad=True)
    labels = torch.randint(100, (64,))
    with Watch():
        out = linear_cross_entropy(hidden, weight, None, labels, torch.ones(64), torch.tensor(64.0), chunk_logits=800)
        out.loss.backward()
    assert max(seen) == 800  # 8 tokens by 100 words, of 6,400


@pytest.mark.parametrize("label", [-100, 17])
def test_labels_must_be_in_the_vocabulary(label):
    problem = _problem()
    labels = torch.full((11,), label)
    with pytest.raises(ValueError, match=r"outside \[0, 17\)"):
        linear_cross_entropy(problem["hidden"], problem["weight"], None, labels, torch.ones(11), torch.tensor(1.0))


def test_arguments_are_checked():
    problem, one = _problem(), torch.tensor(1.0)
    hidden, weight, labels, weights = (problem[name] for name in ("hidden", "weight", "labels", "weights"))
    with pytest.raises(ValueError, match=r"\[N, D\] and \[V, D\]"):
        linear_cross_entropy(hidden, weight[:, :5], None, labels, weights, one)
    with pytest.raises(ValueError, match="expected \\[11\\] each"):
        linear_cross_entropy(hidden, weight, None, labels[:3], weights, one)
    with pytest.raises(ValueError, match="negative value or NaN"):
        linear_cross_entropy(hidden, weight, None, labels, weights - 5, one)
    with pytest.raises(ValueError, match="denominator"):
        linear_cross_entropy(hidden, weight, None, labels, weights, weights)
