"""LoRA that matches what it names, or says what it could have named."""

from __future__ import annotations

import pytest
import torch

from rlhf.config.sections import LoraSection
from rlhf.errors import ModelError
from rlhf.models.adapters import add_lora, check_targets, lora_settings
from rlhf.models.loading import count_parameters, load_causal_lm, load_scalar_model
from rlhf.models.shared import SharedBackbone
from rlhf.ops.segments import Segment, Segments
from tests.support.plain_weights import plain_weights

ROW = (torch.tensor([[5, 9, 300, 42]]), torch.arange(4)[None], Segments((Segment(0, 4),)), torch.arange(4))


def lora(*targets: str, **settings) -> LoraSection:
    return LoraSection(targets=list(targets) or "all-linear", **({"rank": 2, "alpha": 4} | settings))


def adapted(model) -> set[str]:
    """Names of the modules that carry a low-rank update."""
    return {
        name.split(".lora_A")[0].removeprefix("model.base_model.model.")
        for name, _ in model.named_parameters()
        if ".lora_A." in name
    }


def trained(model) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("target", ["decoder.layers.", "q_proj", "key_value", "query_key_valu"])
def test_a_scope_that_matches_nothing_names_the_real_modules(target, tiny_neox):
    model = load_causal_lm(str(tiny_neox))
    with pytest.raises(ModelError, match="LoRA targets match no module") as caught:
        add_lora(model, lora(target))
    assert target in caught.value.problem
    assert caught.value.where == "model.lora.targets"
    # 2 layers, one of each inside
    for choice in ("query_key_value (2)", "dense (2)", "dense_h_to_4h (2)", "dense_4h_to_h (2)"):
        assert choice in caught.value.expected


def test_one_wrong_name_among_right_ones_is_an_error_too(tiny_neox):
    model = load_causal_lm(str(tiny_neox))
    with pytest.raises(ModelError) as caught:
        check_targets(model.model, ["query_key_value", "q_proj", "v_proj"])
    assert caught.value.problem == "LoRA targets match no module: q_proj, v_proj"
    assert len(trained(model)) == len(list(model.parameters()))  # and nothing was wrapped


def test_query_key_value_matches(tiny_neox):
    model = load_causal_lm(str(tiny_neox))
    before = model(*ROW)
    add_lora(model, lora("query_key_value"))
    assert adapted(model) == {f"gpt_neox.layers.{layer}.attention.query_key_value" for layer in (0, 1)}
    assert all("lora_" in name for name in trained(model))
    # A [2, 32] and B [96, 2] in each of 2 layers
    assert count_parameters(model)[1] == 2 * (2 * 32 + 96 * 2)
    torch.testing.assert_close(model(*ROW), before, rtol=0, atol=0)  # B starts at zero


def test_a_dotted_ending_matches(tiny_llama):
    model = load_causal_lm(str(tiny_llama))
    add_lora(model, lora("self_attn.q_proj", "up_proj"))
    assert adapted(model) == {f"model.layers.{n}.{m}" for n in (0, 1) for m in ("self_attn.q_proj", "mlp.up_proj")}


@pytest.mark.parametrize(("family", "linear"), [("tiny_neox", 4), ("tiny_llama", 7)])
def test_all_linear_takes_every_linear_module_but_the_head(family, linear, request):
    model = load_causal_lm(str(request.getfixturevalue(family)))
    add_lora(model, lora())
    assert len(adapted(model)) == 2 * linear
    assert not any("lm_head" in name or "embed_out" in name for name in adapted(model))


@pytest.mark.parametrize("targets", [(), ("query_key_value",)])
def test_the_head_of_a_scalar_model_is_trained_whole(targets, tiny_reward):
    model = load_scalar_model(str(tiny_reward))
    before = model(*ROW)
    add_lora(model, lora(*targets))
    whole = [name for name in trained(model) if "lora_" not in name]
    assert len(whole) == 1
    assert "score" in whole[0]
    assert not any("score" in name for name in adapted(model))
    torch.testing.assert_close(model(*ROW), before, rtol=0, atol=0)
    model(*ROW).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert gradients[whole[0]].abs().sum() > 0
    assert any(gradient.abs().sum() > 0 for name, gradient in gradients.items() if "lora_B" in name)


def test_settings_reach_peft(tiny_neox):
    model = load_causal_lm(str(tiny_neox))
    add_lora(model, lora("query_key_value", rank=4, alpha=12, dropout=0.25))
    module = model.model.base_model.model.gpt_neox.layers[0].attention.query_key_value
    assert module.scaling["default"] == 3.0  # alpha / rank
    assert module.lora_A["default"].weight.shape == (4, 32)
    assert module.lora_dropout["default"].p == 0.25


@pytest.mark.parametrize(("variant", "scale"), [("lora", 12 / 4), ("dora", 12 / 4), ("rslora", 12 / 4**0.5)])
def test_a_variant_has_its_scale_and_starts_as_the_base(variant, scale, tiny_neox):
    model = load_causal_lm(str(tiny_neox))
    before = model(*ROW)
    add_lora(model, lora("query_key_value", rank=4, alpha=12, variant=variant))
    module = model.model.base_model.model.gpt_neox.layers[0].attention.query_key_value
    assert module.scaling["default"] == scale
    lengths = [name for name in trained(model) if "magnitude" in name]
    assert len(lengths) == (2 if variant == "dora" else 0)  # one vector a layer
    torch.testing.assert_close(model(*ROW), before, rtol=1e-5, atol=1e-5)


def test_dora_is_the_direction_of_the_sum_times_a_learnt_length(tiny_neox):
    """arXiv:2402.09353 eq. 5: W' = m (W + s B A) / |W + s B A|, a length for each row."""
    model = load_causal_lm(str(tiny_neox))
    add_lora(model, lora("query_key_value", variant="dora"))
    module = model.model.base_model.model.gpt_neox.layers[0].attention.query_key_value
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        summed = module.base_layer.weight + 2 * module.lora_B["default"].weight @ module.lora_A["default"].weight
        length = module.lora_magnitude_vector["default"].weight
        weight = length[:, None] * summed / summed.norm(dim=1, keepdim=True)
        inputs = torch.randn(5, 32, generator=generator)
        torch.testing.assert_close(
            module(inputs), torch.nn.functional.linear(inputs, weight, module.bias), rtol=1e-5, atol=1e-4
        )


def test_plain_weights_are_those_of_a_merged_copy(tiny_neox):
    model = load_causal_lm(str(tiny_neox))
    before = {name: parameter.clone() for name, parameter in model.model.named_parameters()}
    assert {name for name, _ in plain_weights(model.model)} == set(before)
    add_lora(model, LoraSection(rank=2, targets=["query_key_value"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    read = {name: parameter.clone() for name, parameter in plain_weights(model.model)}
    apart = {name: parameter.clone() for name, parameter in model.model.get_base_model().named_parameters()}
    merged = dict(model.model.merge_and_unload().named_parameters())
    assert set(read) == set(merged) == set(before)
    for name, parameter in merged.items():
        torch.testing.assert_close(read[name], parameter, rtol=0, atol=1e-6)
    changed = [name for name in read if not torch.equal(read[name], before[name])]
    assert changed == [name for name in before if name.endswith("query_key_value.weight")]
    for name, parameter in apart.items():  # and the live weights are themselves again
        if name.endswith("base_layer.weight"):
            torch.testing.assert_close(parameter, before[name.replace(".base_layer", "")], rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", ["lora", "dora", "rslora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reading_plain_weights_never_changes_the_frozen_ones(variant, dtype, tiny_neox):
    """Bit for bit, while they are read and after; the sum is the layer's own product, in float32 and rounded once."""
    model = load_causal_lm(str(tiny_neox), dtype=dtype)
    add_lora(model, lora("query_key_value", variant=variant))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    frozen = {name: value for name, value in model.named_parameters() if "lora_" not in name}
    before = {name: value.detach().clone() for name, value in frozen.items()}
    for _ in range(3):
        found = {}
        for name, value in plain_weights(model.model):
            found[name] = value.clone()
            assert all(torch.equal(value, before[each]) for each, value in frozen.items())
    layer = model.model.base_model.model.gpt_neox.layers[0].attention.query_key_value
    up, down = layer.lora_B["default"].weight.float(), layer.lora_A["default"].weight.float()
    expected = layer.base_layer.weight.float() + layer.scaling["default"] * up @ down
    if variant == "dora":
        length = layer.lora_magnitude_vector["default"].weight.float()
        expected = length[:, None] * expected / expected.norm(dim=1, keepdim=True)
    merged = found["gpt_neox.layers.0.attention.query_key_value.weight"]
    assert merged.dtype == layer.base_layer.weight.dtype
    # One rounding of the sum to eight bits is 2 ** -9 of it; peft multiplies up and down in the adapter's own type.
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 2**-7, "atol": 1e-3}
    torch.testing.assert_close(merged.float(), expected, **tolerance)
    assert not layer.merged


def test_plain_weights_of_a_shared_backbone_have_the_selected_role_alone(tiny_neox):
    """Adapters of several roles lie in one layer under one name each; a role without an adapter is the backbone."""
    plain = load_causal_lm(str(tiny_neox))
    settings = lora_settings(plain, lora("query_key_value"))
    before = {name: value.detach().clone() for name, value in plain.model.named_parameters()}
    backbone = SharedBackbone(plain, settings)
    backbone.add_adapter("critic", settings)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    layer = backbone.language.model.base_model.model.gpt_neox.layers[1].attention.query_key_value
    name = "gpt_neox.layers.1.attention.query_key_value.weight"
    for role in ("actor", "critic", "reference"):
        backbone.select(role)
        found = dict(plain_weights(backbone.language.model))
        assert set(found) == set(before)
        update = 0.0 if role == "reference" else 2 * layer.lora_B[role].weight @ layer.lora_A[role].weight
        torch.testing.assert_close(found[name], before[name] + update, rtol=1e-6, atol=1e-6)
        others = [each for each in before if not each.endswith("query_key_value.weight")]
        assert all(torch.equal(found[each], before[each]) for each in others)
