"""Token log-probabilities from hidden states: against autograd through whole logits, kept and recomputed."""

import math

import pytest
import torch
from torch import nn

from rlhf.ops.linear_logprobs import linear_logprobs

TOLERANCE = {"rtol": 1e-5, "atol": 5e-6}  # gradients are sums of 187 terms of size 1, in another order


def test_by_hand():
    # logits (ln 3, 0) / 1: probabilities 3/4, 1/4; entropy ln 4 - 3/4 ln 3
    hidden = torch.tensor([[1.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[math.log(3), 0.0], [0.0, 5.0]])
    out = linear_logprobs(hidden, weight, None, torch.tensor([1]), with_entropy=True)
    assert out.logprobs.item() == pytest.approx(-math.log(4))
    assert out.entropy.item() == pytest.approx(math.log(4) - 0.75 * math.log(3))
    out.logprobs.sum().backward()
    # d log p_1 / d z = (-3/4, 1 - 1/4); times the rows of the weight
    assert hidden.grad.tolist()[0] == pytest.approx([-0.75 * math.log(3), 0.75 * 5])


@pytest.mark.parametrize("entropy_weight", [0.0, 0.7])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("kept", "chunk"), [(0, 17), (0, 17 * 4), (10**6, 17 * 4), (10**6, 10**6)])
def test_equals_whole_logits_in_values_and_gradients(kept, chunk, temperature, entropy_weight):
    torch.manual_seed(0)
    start = [torch.randn(11, 6), torch.randn(17, 6), torch.randn(17)]
    tokens, up = torch.randint(17, (11,)), torch.randn(11)
    ours, plain = ([each.clone().requires_grad_() for each in start] for _ in range(2))
    settings = {"temperature": temperature, "with_entropy": True, "kept": kept, "chunk": chunk}
    out = linear_logprobs(ours[0], ours[1], ours[2], tokens, **settings)
    logs = (nn.functional.linear(*plain) / temperature).log_softmax(-1)
    logprobs, entropy = logs.gather(1, tokens[:, None])[:, 0], -(logs.exp() * logs).sum(-1)
    torch.testing.assert_close(out.logprobs, logprobs, **TOLERANCE)
    torch.testing.assert_close(out.entropy, entropy, **TOLERANCE)
    ((out.logprobs * up).sum() + entropy_weight * (out.entropy * up.square()).sum()).backward()
    ((logprobs * up).sum() + entropy_weight * (entropy * up.square()).sum()).backward()
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, **TOLERANCE)


@pytest.mark.parametrize(("kept", "held"), [(33, 33), (32, 0)])
def test_probabilities_are_held_for_backward_up_to_a_limit(kept, held):
    """Three tokens of 11 words, in chunks of two: all 33 numbers, or none."""
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(11, 4)
    out = linear_logprobs(hidden, weight, None, torch.tensor([0, 4, 2]), kept=kept, chunk=22)
    saved = [each for each in out.logprobs.grad_fn.saved_tensors if each is not None and each.shape[-1:] == (11,)]
    assert sum(each.numel() for each in saved) == held


def test_a_frozen_head_and_inference():
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    linear_logprobs(hidden, weight, None, torch.tensor([0, 4, 2])).logprobs.sum().backward()
    assert hidden.grad.abs().sum() > 0
    with torch.no_grad():
        out = linear_logprobs(hidden, weight, None, torch.tensor([0, 4, 2]))
    assert not out.logprobs.requires_grad


def test_impossible_words_do_not_spoil_the_entropy():
    weight = torch.tensor([[1.0], [0.0], [-float("inf")]])
    out = linear_logprobs(torch.ones(1, 1), weight, None, torch.tensor([0]), with_entropy=True)
    # probabilities e / (e + 1) and 1 / (e + 1)
    p = math.e / (math.e + 1)
    assert out.entropy.item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), rel=1e-5)


def test_arguments_are_checked():
    hidden, weight, tokens = torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        linear_logprobs(hidden, weight[:, :2], None, tokens)
    with pytest.raises(ValueError, match="temperature"):
        linear_logprobs(hidden, weight, None, tokens, temperature=0.0)
    with pytest.raises(ValueError, match=r"outside \[0, 4\)"):
        linear_logprobs(hidden, weight, None, tokens + 4)
