"""The one-number head: how it starts, and a zero that stays shifted through a save."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from rlhf.models.loading import load_scalar_model
from rlhf.models.scalar_head import final_norm, initialise_head, scaled_head, shift_scores
from rlhf.ops.segments import Segment, Segments

IDS = torch.tensor([[5, 9, 300, 42, 7, 250, 3]])
ROW = (IDS, torch.arange(7)[None], Segments((Segment(0, 7),)), torch.arange(7))


def test_head_starts_at_a_thousandth_over_root_d_plus_one():
    head = torch.nn.Linear(20_000, 1, bias=False)
    initialise_head(head, seed=1)
    # the standard error of a standard deviation over 20,000 draws is 0.5 %; 2 % is 4 of them
    assert head.weight.std().item() == pytest.approx(1e-3 / math.sqrt(20_001), rel=0.02)
    assert abs(head.weight.mean().item()) < 4e-3 / math.sqrt(20_001) / math.sqrt(20_000)


def test_a_small_head_shows_the_plus_one():
    draws = []
    for seed in range(4000):
        head = torch.nn.Linear(3, 1, bias=False)
        initialise_head(head, seed=seed)
        draws.append(head.weight.detach().flatten())
    # 1 / sqrt(4) = 0.5; without the + 1 it would be 0.577
    assert torch.cat(draws).std().item() == pytest.approx(0.5e-3, rel=0.03)


def test_head_depends_on_its_seed_alone():
    heads = [torch.nn.Linear(64, 1, bias=False) for _ in range(3)]
    for head, seed in zip(heads, (5, 5, 6), strict=True):
        torch.manual_seed(int(head.weight[0, 0].item() * 1e6) % 1000)
        initialise_head(head, seed=seed)
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)


def test_value_head_of_zeros():
    head = torch.nn.Linear(8, 1, bias=False)
    initialise_head(head, seed=1, zero=True)
    assert head.weight.tolist() == [[0.0] * 8]


@pytest.mark.parametrize("offset", [2.5, -0.75])
@torch.no_grad()
def test_shift_goes_into_the_bias_and_through_a_plain_reload(offset, tiny_reward, tmp_path):
    model = load_scalar_model(str(tiny_reward)).eval()
    before = model(*ROW)
    assert shift_scores(model.model, offset) == "bias"
    torch.testing.assert_close(model(*ROW), before + offset, rtol=0, atol=1e-5)
    model.model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation="eager").eval()
    torch.testing.assert_close(plain(IDS).logits[0], before[-1:] + offset, rtol=0, atol=1e-5)
    again = load_scalar_model(str(tmp_path)).eval()  # not twice: the configuration says nothing of it
    torch.testing.assert_close(again(*ROW), before + offset, rtol=0, atol=1e-5)


@torch.no_grad()
def test_two_shifts_add_up(tiny_reward):
    model = load_scalar_model(str(tiny_reward)).eval()
    before = model(*ROW)
    shift_scores(model.model, 1.5)
    shift_scores(model.model, -4.0)
    torch.testing.assert_close(model(*ROW), before - 2.5, rtol=0, atol=1e-5)


@torch.no_grad()
def test_without_a_bias_the_shift_is_kept_in_the_configuration(tiny_llama, tmp_path):
    model = load_scalar_model(str(tiny_llama), new_head=True).eval()
    initialise_head(model.model.score, seed=3)
    before = model(*ROW)
    assert shift_scores(model.model, 1.25) == "config"
    assert shift_scores(model.model, 0.5) == "config"
    torch.testing.assert_close(model(*ROW), before + 1.75, rtol=0, atol=1e-5)
    model.model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).score_shift == 1.75
    torch.testing.assert_close(load_scalar_model(str(tmp_path)).eval()(*ROW), before + 1.75, rtol=0, atol=1e-5)


def test_a_zero_head_cannot_be_shifted_by_a_bias(tiny_reward):
    model = load_scalar_model(str(tiny_reward))
    initialise_head(model.model.score, seed=1, zero=True)
    with pytest.raises(ValueError, match="weight is zero"):
        shift_scores(model.model, 1.0)


def test_final_norm_is_what_the_head_reads(tiny_reward, tiny_llama):
    neox = load_scalar_model(str(tiny_reward)).model
    assert final_norm(neox) is neox.gpt_neox.final_layer_norm
    assert final_norm(load_scalar_model(str(tiny_llama), new_head=True).model) is None  # an RMS norm has no bias


def test_a_scaled_head_is_its_weight_alone_wherever_it_stands():
    one = torch.ones(2)
    names = ("score.weight", "base_model.model.score.modules_to_save.default.weight", "x.score.original_module.weight")
    found = scaled_head({**dict.fromkeys(names, one), "model.underscore.weight": one, "score.bias": one}, 3.0)
    assert {name: weight[0].item() for name, weight in found.items()} == {
        names[0]: 3,
        names[1]: 3,
        names[2]: 1,
        "model.underscore.weight": 1,
        "score.bias": 1,
    }
