"""Token log-probabilities, entropy, and sampling."""

import math

import pytest
import torch

from rlhf.ops.logprobs import BLOCK, entropy, greedy, sample_inverse_cdf, sampling_logits, token_logprobs

INF = float("inf")
NAN = float("nan")


def _logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def test_token_logprobs_by_hand():
    logits = _logits(0.5, 0.3, 0.2) + 4  # a shift changes nothing
    assert token_logprobs(logits, torch.tensor([1])).item() == pytest.approx(math.log(0.3), rel=1e-6)
    # temperature 1/2 squares: 0.09 / (0.25 + 0.09 + 0.04) = 0.09 / 0.38
    halved = token_logprobs(logits, torch.tensor([1]), temperature=0.5).item()
    assert halved == pytest.approx(math.log(0.09 / 0.38), rel=1e-5)


def test_token_logprobs_and_gradient_match_log_softmax():
    torch.manual_seed(0)
    logits, tokens = torch.randn(2, 3, 7), torch.randint(7, (2, 3))
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    out = token_logprobs(ours, tokens, temperature=0.7)
    expected = (theirs / 0.7).log_softmax(-1)[torch.arange(2)[:, None], torch.arange(3), tokens]
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn(2, 3)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_token_logprobs_of_half_precision_are_float32():
    out = token_logprobs(torch.zeros(1, 1000, dtype=torch.bfloat16), torch.tensor([3]))
    assert out.dtype == torch.float32
    assert out.item() == pytest.approx(-math.log(1000), rel=1e-6)  # bfloat16 would give -6.90625


def test_token_logprobs_do_not_overflow():
    out = token_logprobs(torch.tensor([[1e4, 0.0]]), torch.tensor([1]))
    assert out.item() == pytest.approx(-1e4)  # log(e^0 / (e^10000 + 1))


def test_entropy_by_hand():
    uniform = torch.zeros(2, 8)
    assert entropy(uniform).tolist() == pytest.approx([math.log(8)] * 2, rel=1e-6)
    # -(3/4 ln 3/4 + 1/4 ln 1/4) = 0.5623351; temperature 2 leaves sqrt(3) : 1
    assert entropy(_logits(0.75, 0.25)).item() == pytest.approx(0.5623351, rel=1e-5)
    p = math.sqrt(3) / (math.sqrt(3) + 1)
    expected = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert entropy(_logits(0.75, 0.25), temperature=2.0).item() == pytest.approx(expected, rel=1e-5)


def test_entropy_and_gradient_survive_cut_tokens():
    logits = torch.tensor([[0.0, 0.0, -INF]], requires_grad=True)
    out = entropy(logits)
    assert out.item() == pytest.approx(math.log(2), rel=1e-6)
    out.backward()
    # dH/dz_i = -p_i (log p_i + H) = -1/2 (-ln 2 + ln 2) = 0 for the two, p = 0 for the third
    torch.testing.assert_close(logits.grad, torch.zeros(1, 3), rtol=0, atol=1e-6)


def test_entropy_gradient_matches_the_closed_form():
    torch.manual_seed(1)
    logits = torch.randn(3, 6, requires_grad=True)
    entropy(logits).sum().backward()
    p = logits.detach().softmax(-1)
    h = -(p * p.log()).sum(-1, keepdim=True)
    torch.testing.assert_close(logits.grad, -p * (p.log() + h), rtol=1e-5, atol=1e-6)


def test_sampling_logits_without_cuts_only_scale():
    logits = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.bfloat16)
    out = sampling_logits(logits, temperature=0.5)
    assert out.dtype == torch.float32
    assert out.tolist() == [[2.0, -4.0, 6.0]]


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 1.0, [0, 1, 2, 3]),
        (1, 1.0, [1]),
        (2, 1.0, [1, 3]),
        (4, 1.0, [0, 1, 2, 3]),
        (99, 1.0, [0, 1, 2, 3]),  # more than the vocabulary
        (0, 1e-9, [1]),  # at least one token
        (0, 0.45, [1]),  # .5 reaches .45
        (0, 0.55, [1, 3]),  # .5 does not, .5 + .3 does
        (0, 0.85, [0, 1, 3]),  # .5 + .3 + .15
        (0, 0.97, [0, 1, 2, 3]),
        (2, 0.6, [1]),  # of the two that are left, .5 / .8 = .625 reaches .6
        (3, 0.6, [1, 3]),  # .5 / .95 = .526 does not
        (3, 1.0, [0, 1, 3]),
    ],
)
def test_sampling_logits_cuts(top_k, top_p, kept):
    logits = _logits(0.15, 0.5, 0.05, 0.3)
    out = sampling_logits(logits, temperature=1.0, top_k=top_k, top_p=top_p)
    assert (out[0] > -INF).nonzero().flatten().tolist() == kept
    assert torch.equal(out[0, kept], logits[0, kept])


def test_temperature_comes_before_the_nucleus():
    # temperature 1/2 turns .6 : .4 into .36 : .16, so the first has .692 and reaches .65 alone
    logits = _logits(0.6, 0.4)
    assert torch.isinf(sampling_logits(logits, temperature=0.5, top_p=0.65)).tolist() == [[False, True]]
    assert torch.isinf(sampling_logits(logits, temperature=1.0, top_p=0.65)).tolist() == [[False, False]]


def test_mass_that_reaches_top_p_exactly_is_enough():
    # two of four equal tokens hold exactly 1/2, representable in binary
    out = sampling_logits(torch.zeros(1, 4), temperature=1.0, top_p=0.5)
    assert torch.isinf(out).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("cut", [{"top_k": 2}, {"top_p": 0.35}])
def test_ties_keep_the_lower_ids_and_no_more(cut):
    # five equal tokens of .2 after a negligible one: top-k 2 and mass .35 both mean two of them
    logits = torch.tensor([[-50.0, 1.0, 1.0, 1.0, 1.0, 1.0]]).repeat(3, 1)
    out = sampling_logits(logits, temperature=1.0, **cut)
    assert [(row > -INF).nonzero().flatten().tolist() for row in out] == [[1, 2]] * 3


def test_ties_over_a_large_vocabulary_keep_the_lower_ids():
    out = sampling_logits(torch.zeros(2, 4096), temperature=1.0, top_p=0.25)  # 1024 * 2^-12
    assert torch.equal(out > -INF, (torch.arange(4096) < 1024).expand(2, 4096))


def test_top_k_with_a_tie_below_the_best():
    out = sampling_logits(torch.tensor([[1.0, 0.0, 1.0, 5.0]]), temperature=1.0, top_k=2)
    assert torch.isinf(out).tolist() == [[False, True, True, False]]


def test_rows_are_cut_apart_and_any_shape_is_taken():
    logits = torch.stack([_logits(0.9, 0.1), _logits(0.5, 0.5)])  # [2, 1, 2]
    out = sampling_logits(logits, temperature=1.0, top_p=0.8)
    assert torch.isinf(out).tolist() == [[[False, True]], [[False, False]]]


@pytest.mark.parametrize(
    ("uniform", "token"),
    [(0.0, 1), (0.24, 1), (0.26, 2), (0.74, 2), (0.76, 4), (1 - 2**-24, 4), (1 - 2**-53, 4)],
)
def test_inverse_cdf_by_hand(uniform, token):
    # cumulative 0, 1/4, 3/4, 3/4, 1, 1: tokens 0, 3 and 5 own nothing
    logits = torch.tensor([[0.0, 0.25, 0.5, 0.0, 0.25, 0.0]])
    logits = logits.log() + 3  # log 0 is -inf; a shift changes nothing
    out = sample_inverse_cdf(logits, torch.tensor([uniform], dtype=torch.float64))
    assert out.tokens.dtype == torch.int64
    assert out.tokens.tolist() == [token]
    assert out.logprobs.item() == pytest.approx(math.log(0.5 if token == 2 else 0.25), rel=1e-6)


def test_inverse_cdf_boundary_belongs_to_the_next_token():
    out = sample_inverse_cdf(torch.zeros(4, 4), torch.tensor([0.0, 0.25, 0.5, 0.75]))
    assert out.tokens.tolist() == [0, 1, 2, 3]
    # and so does the boundary of two blocks
    assert sample_inverse_cdf(torch.zeros(1, 2 * BLOCK), torch.tensor([0.5])).tokens.tolist() == [BLOCK]


def test_inverse_cdf_reaches_a_token_of_2_to_the_minus_30():
    # in float32, 1 + 2^-30 is 1: the second token would own nothing
    logits = torch.tensor([[0.0, -30 * math.log(2)]])
    out = sample_inverse_cdf(logits, torch.tensor([1 - 2**-53], dtype=torch.float64))
    assert out.tokens.tolist() == [1]


def test_inverse_cdf_survives_a_scan_that_is_not_monotone(monkeypatch):
    # Parallel scans round each prefix differently. Here masses 1, 0, 1 add up to 1, a bit more than 1, 2.
    plain = torch.Tensor.cumsum
    scan = torch.tensor([[1.0, 1.0 + 2**-52] + [2.0] * (BLOCK - 2)], dtype=torch.float64)
    monkeypatch.setattr(torch.Tensor, "cumsum", lambda self, dim: scan if self.shape[1] == BLOCK else plain(self, dim))
    out = sample_inverse_cdf(torch.tensor([[0.0, -INF, 0.0]]), torch.tensor([0.5]))
    assert out.tokens.tolist() == [2]


def test_inverse_cdf_finds_its_token_across_blocks():
    # 300 tokens of equal mass lie in three blocks; the draw at (n + 1/2) / 300 is token n
    tokens = torch.tensor([0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 299])
    out = sample_inverse_cdf(torch.zeros(6, 300), (tokens.double() + 0.5) / 300)
    assert out.tokens.tolist() == tokens.tolist()
    assert out.logprobs.tolist() == pytest.approx([-math.log(300)] * 6)


def test_inverse_cdf_never_draws_probability_zero():
    torch.manual_seed(2)
    logits = torch.randn(200, 50) * 30  # many probabilities underflow to 0
    logits[torch.rand(200, 50) < 0.5] = -INF
    logits[:, 25] = 0.0
    possible = logits.softmax(-1) > 0
    edges = torch.tensor([0.0, 1e-300, 1e-45, 0.5, 1 - 2**-24, 1 - 2**-53], dtype=torch.float64)
    for uniform in edges:
        out = sample_inverse_cdf(logits, uniform.expand(200))
        assert possible.gather(1, out.tokens[:, None]).all()
        assert out.logprobs.isfinite().all()


def test_inverse_cdf_frequencies_over_a_grid():
    # 1000 evenly spaced uniforms must give each token its probability to 1/1000
    uniform = (torch.arange(1000) + 0.5) / 1000
    out = sample_inverse_cdf(_logits(0.1, 0.2, 0.3, 0.4).expand(1000, 4), uniform)
    assert out.tokens.bincount(minlength=4).tolist() == pytest.approx([100, 200, 300, 400], abs=1)


def test_a_row_does_not_depend_on_its_batch():
    torch.manual_seed(3)
    logits, uniform = torch.randn(5, 11), torch.rand(5)
    whole = sample_inverse_cdf(logits, uniform)
    alone = [sample_inverse_cdf(logits[row : row + 1], uniform[row : row + 1]) for row in range(5)]
    assert whole.tokens.tolist() == [each.tokens.item() for each in alone]
    assert whole.logprobs.tolist() == [each.logprobs.item() for each in alone]


def test_greedy_by_hand():
    out = greedy(torch.cat([_logits(0.2, 0.7, 0.1), _logits(0.6, 0.0, 0.4)]) - 5)  # a shift changes nothing
    assert out.tokens.tolist() == [1, 0]
    assert out.logprobs.tolist() == pytest.approx([math.log(0.7), math.log(0.6)], rel=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, NAN])
def test_temperature_must_be_positive(temperature):
    logits = torch.zeros(1, 3)
    for call in (
        lambda: token_logprobs(logits, torch.tensor([0]), temperature=temperature),
        lambda: entropy(logits, temperature=temperature),
        lambda: sampling_logits(logits, temperature=temperature),
    ):
        with pytest.raises(ValueError, match="expected > 0"):
            call()


@pytest.mark.parametrize("cut", [{"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_p": NAN}])
def test_impossible_cuts_raise(cut):
    with pytest.raises(ValueError, match=next(iter(cut))):
        sampling_logits(torch.zeros(1, 3), temperature=1.0, **cut)


def test_tokens_are_checked():
    with pytest.raises(ValueError, match=r"tokens have shape \[2\], expected \[1\]"):
        token_logprobs(torch.zeros(1, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"expected torch\.int64"):
        token_logprobs(torch.zeros(1, 3), torch.tensor([0.0]))


@pytest.mark.parametrize("bad", [[NAN, 0.0], [INF, 0.0], [-INF, -INF]])
def test_rows_without_a_distribution_raise(bad):
    logits = torch.tensor([[0.0, 0.0], bad])
    with pytest.raises(ValueError, match="row 1 "):
        sample_inverse_cdf(logits, torch.rand(2))
    with pytest.raises(ValueError, match="row 1 "):
        greedy(logits)


@pytest.mark.parametrize("uniform", [[1.0], [-0.1], [NAN], [0.5, 0.5]])
def test_uniform_is_checked(uniform):
    with pytest.raises(ValueError, match="uniform has"):
        sample_inverse_cdf(torch.zeros(1, 3), torch.tensor(uniform))


def test_drawing_needs_two_dimensions():
    with pytest.raises(ValueError, match=r"expected \[B, V\]"):
        greedy(torch.zeros(3))
