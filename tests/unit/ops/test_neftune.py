"""Noise on embeddings: its bound, its streams, and that packing does not change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import pack_sequences
from rlhf.models.head import LossRequest
from rlhf.models.loading import load_causal_lm
from rlhf.ops.neftune import embedding_noise, noise_bound

LENGTHS = (7, 3)


def noise(lengths=LENGTHS, places=(4, 9), *, alpha=5.0, seed=1, step=2, width=32) -> torch.Tensor:
    return embedding_noise(lengths, places, width, alpha=alpha, seed=seed, step=step)


def test_each_sequence_has_its_own_bound_and_fills_it() -> None:
    """alpha / sqrt(L d): 5 / sqrt(7 * 32) = 0.334 and 5 / sqrt(3 * 32) = 0.510; uniform, so E x^2 = bound^2 / 3."""
    for piece, length in zip(noise(width=32).split(LENGTHS, dim=1), LENGTHS, strict=True):
        bound = 5 / math.sqrt(length * 32)
        assert 0.9 * bound < piece.abs().max() <= bound
    wide = noise((50,), (0,), width=2000)
    bound = 5 / math.sqrt(50 * 2000)
    assert wide.mean().item() == pytest.approx(0, abs=0.01 * bound)
    assert wide.square().mean().item() == pytest.approx(bound**2 / 3, rel=0.02)  # 100,000 draws: 0.3 % of deviation


def test_the_bound_by_hand() -> None:
    """5 / sqrt(4 * 25) = 0.5; four times as many tokens halve it, and so does half of alpha."""
    assert noise_bound(4, 25, alpha=5.0) == pytest.approx(0.5)
    assert noise_bound(16, 25, alpha=5.0) == pytest.approx(0.25)
    assert noise_bound(4, 25, alpha=2.5) == pytest.approx(0.25)


def test_a_sequence_gets_the_same_noise_in_any_row() -> None:
    both = noise()
    assert torch.equal(both[:, 7:], noise((3,), (9,)))
    assert torch.equal(torch.cat([both[:, 7:], both[:, :7]], dim=1), noise((3, 7), (9, 4)))


@pytest.mark.parametrize("other", [{"seed": 2}, {"step": 3}, {"places": (5, 9)}])
def test_seed_step_and_place_name_the_stream(other) -> None:
    assert not torch.equal(noise(**other)[:, :7], noise()[:, :7])


def test_an_idle_row_is_left_as_it_is() -> None:
    assert noise((), ()).tolist() == torch.zeros(1, 1, 32).tolist()


def sequences() -> list[EncodedSequence]:
    random = np.random.default_rng(3)
    return [
        EncodedSequence(random.integers(2, 400, length).astype(np.int32), np.ones(length, bool)) for length in LENGTHS
    ]


def cost(model, items, places, alpha=5.0) -> torch.Tensor:
    row = pack_sequences(items)
    added = noise([len(item) for item in items], places, alpha=alpha)
    return model(
        row.input_ids,
        row.position_ids,
        row.segments,
        row.positions,
        LossRequest(row.labels, row.weights, torch.tensor(1.0)),
        noise=added,
    ).loss


@pytest.mark.parametrize("family", ["tiny_neox", "tiny_llama"])
def test_packed_rows_cost_what_single_ones_do(family, request) -> None:
    model, items = load_causal_lm(str(request.getfixturevalue(family))).train(), sequences()
    packed = cost(model, items, (4, 9))
    apart = cost(model, items[:1], (4,)) + cost(model, items[1:], (9,))
    torch.testing.assert_close(packed, apart, rtol=1e-5, atol=1e-5)
    assert abs(float((packed - cost(model, items, (4, 8))).detach())) > 1e-3  # other noise, another loss
    row = pack_sequences(items)
    logits = model(row.input_ids, row.position_ids, row.segments, row.positions)
    plain = torch.nn.functional.cross_entropy(logits, row.labels, reduction="sum")
    torch.testing.assert_close(cost(model, items, (4, 9), alpha=0.0), plain, rtol=1e-5, atol=1e-4)
    assert abs(float((packed - plain).detach())) > 1e-3


def test_the_embeddings_learn_through_the_noise(tiny_neox) -> None:
    model = load_causal_lm(str(tiny_neox)).train()
    cost(model, sequences(), (4, 9)).backward()
    assert model.model.get_input_embeddings().weight.grad.abs().sum() > 0
