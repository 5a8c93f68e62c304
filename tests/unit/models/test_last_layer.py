"""The last MLP at read positions alone: every architecture computes what it does with the whole row."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, MixtralConfig, OPTConfig

from rlhf.config.sections import LoraSection
from rlhf.models.adapters import add_lora
from rlhf.models.last_layer import KEY, LastMLP, _Placed, read_last_mlp_in_part
from rlhf.models.loading import PackedModel, checkpoint_activations, load_causal_lm, load_scalar_model
from rlhf.ops.segments import Segment, Segments
from tests.support.model_matrix import ARCHITECTURES, save_model

IDS = torch.tensor([[5, 9, 300, 42, 7, 250, 3, 11, 12, 80, 81]])
PLACES = torch.tensor([[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2]])
# A prompt of three tokens with answers of two and three, and a sequence of three.
SEGMENTS = Segments((Segment(0, 3), Segment(3, 5, 0, 3), Segment(5, 8, 0, 3), Segment(8, 11)))
READ = torch.tensor([2, 3, 2, 5, 6, 9])  # the prompt's last token once for each answer


def last_of(model: Any) -> LastMLP:
    found = {id(each): each for module in model.modules() if (each := vars(module).get(KEY)) is not None}
    (last,) = found.values()
    return last


def outputs_and_gradients(model: PackedModel, read: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    output = model(IDS, PLACES, SEGMENTS, read)
    weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape)  # rows of one position differ
    (output * weights).sum().backward()
    return output.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model: PackedModel, read: torch.Tensor = READ) -> None:
    last = last_of(model)
    assert last.enabled
    seen: list[int] = []
    mlp = next(module for module in model.modules() if last.before in module._forward_pre_hooks.values())
    handle = mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    output, gradients = outputs_and_gradients(model, read)
    assert set(seen) == {len(read)}  # with activation checkpointing it is seen twice
    handle.remove()
    last.enabled = False
    whole, of_whole = outputs_and_gradients(model, read)
    torch.testing.assert_close(output, whole, rtol=2e-5, atol=2e-5)
    assert gradients.keys() == of_whole.keys()
    for name, gradient in gradients.items():
        scale = float(of_whole[name].abs().max())
        torch.testing.assert_close(gradient, of_whole[name], rtol=1e-4, atol=1e-5 * max(scale, 1e-3), msg=name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_and_gradients_are_those_of_the_whole_row(name, tmp_path, tiny_tokenizer) -> None:
    assert_same(load_causal_lm(str(save_model(name, tmp_path / name, tiny_tokenizer))))


def test_scores_are_those_of_the_whole_row(tiny_reward: Path) -> None:
    assert_same(load_scalar_model(str(tiny_reward)), torch.tensor([4, 7]))


@pytest.mark.parametrize("model", ["tiny_neox", "tiny_llama"])
def test_recomputed_activations_see_the_read_positions(model, request) -> None:
    loaded = load_causal_lm(str(request.getfixturevalue(model)))
    checkpoint_activations(loaded.model)
    assert_same(loaded.train())


def test_rows_of_two_forward_passes_do_not_mix_in_their_backward_passes(tiny_neox: Path) -> None:
    model = load_causal_lm(str(tiny_neox))
    checkpoint_activations(model.model)
    model.train()

    def both() -> list[torch.Tensor]:
        model.zero_grad()
        outputs = [model(IDS, PLACES, SEGMENTS, read) for read in (READ, torch.tensor([4]))]
        for output in outputs:
            output.square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    gradients = both()
    last_of(model).enabled = False
    for found, whole in zip(gradients, both(), strict=True):
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)


def test_an_adapter_inside_the_mlp(tiny_neox: Path) -> None:
    model = load_causal_lm(str(tiny_neox))
    add_lora(model, LoraSection(rank=2, targets="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(5))
    assert_same(model)


def test_a_copy_has_hooks_of_its_own(tiny_neox: Path) -> None:
    model = load_causal_lm(str(tiny_neox))
    twin = copy.deepcopy(model)
    assert last_of(twin) is not last_of(model)
    assert_same(twin)
    assert last_of(model).enabled


def test_of_a_position_read_twice_the_first_row_counts_where_dropout_draws_each_anew() -> None:
    rows = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)  # as after a dropout: no two are equal
    places = torch.tensor([2, 0, 2, 2])
    placed = _Placed.apply(rows, places, 5)
    assert torch.equal(placed[0, 2], rows[0, 0])
    assert torch.equal(placed[0, 0], rows[0, 1])
    assert not placed[0, [1, 3, 4]].any()
    assert torch.autograd.gradcheck(lambda given: _Placed.apply(given, places, 5), rows)


def test_without_positions_the_whole_row_is_computed(tiny_neox: Path) -> None:
    causal = load_causal_lm(str(tiny_neox)).model
    inputs = {"input_ids": IDS, "position_ids": PLACES, "segments": SEGMENTS, "use_cache": False}
    whole = causal(**inputs, attention_mask=torch.empty(1, 1, 0, 0, dtype=torch.bool)).logits
    last_of(causal).enabled = False
    again = causal(**inputs, attention_mask=torch.empty(1, 1, 0, 0, dtype=torch.bool)).logits
    assert torch.equal(whole, again)
    assert whole.abs().amin(-1).gt(0).all()


@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                      num_key_value_heads=2, vocab_size=400, num_local_experts=2),
        OPTConfig(hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=400,
                  word_embed_proj_dim=16),
    ],
    ids=["experts", "no module for its MLP"],
)  # fmt: skip
def test_what_cannot_be_told_to_treat_positions_alike_stays(config) -> None:
    model = AutoModelForCausalLM.from_config(config)
    assert not read_last_mlp_in_part(model)
    assert not [module for module in model.modules() if module._forward_pre_hooks]


class Shifted(nn.Module):
    """An MLP that looks at the token before, by a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.share = nn.Linear(4, 4), nn.Parameter(torch.ones(4))


def test_an_mlp_with_a_weight_outside_its_linear_layers_stays(tiny_neox: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_neox)
    model.gpt_neox.layers[-1].mlp = Shifted()
    assert not read_last_mlp_in_part(model)


def test_a_convolution_beside_the_mlp_may_mix_positions(tiny_neox: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_neox)
    model.gpt_neox.layers[-1].behind = nn.Conv1d(4, 4, 3)
    assert not read_last_mlp_in_part(model)


def test_a_layer_whose_mlp_comes_first_is_left_alone_from_its_first_pass_on() -> None:
    last, mlp = LastMLP(), nn.Linear(3, 3)
    hidden, read = torch.randn(1, 5, 3), torch.tensor([1])
    for _ in range(2):
        assert last.before(mlp, (hidden,)) is None
        last.attended(read)
        last.ended()
        assert not last.enabled
    last.attended(read)  # a recomputed layer
    assert last.before(mlp, (hidden,)) is None
