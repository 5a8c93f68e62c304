"""Weights as an engine loads them, against what transformers and peft write and merge by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.core_model_loading import Chunk, WeightConverter

from rlhf.config.sections import LoraSection
from rlhf.models.adapters import add_lora
from rlhf.models.loading import load_causal_lm
from rlhf.models.quantization import dequantized_weights
from rlhf.models.shared import SharedBackbone
from rlhf.rollout.server.readers import views
from rlhf.rollout.vllm.transport import SharedMemory, bucket_room, placed
from rlhf.rollout.vllm.weights import buckets, checkpoint_tensors, weight_groups


def tensors_of(model, dtype=torch.float32):
    found = {}
    for group in weight_groups(model):
        made = checkpoint_tensors(model, group, dtype)
        assert not found.keys() & made.keys()
        found |= made
    return found


def same(found, expected, atol=0.0):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.to(found[name]), rtol=0, atol=atol)


@pytest.mark.parametrize("folder", ["tiny_neox", "tiny_llama"])
def test_names_and_values_are_those_of_the_file(folder, request):
    path = request.getfixturevalue(folder)
    same(tensors_of(load_causal_lm(str(path)).model), load_file(path / "model.safetensors"))


def test_experts_that_the_module_joins_are_the_files_own(tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=40, num_key_value_heads=2, num_local_experts=3, **shape)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    expected = load_file(tmp_path / "model.safetensors")
    assert any("experts.2.w1" in name for name in expected)
    same(tensors_of(MixtralForCausalLM.from_pretrained(tmp_path)), expected)


def test_parameters_that_a_file_holds_as_one_are_joined(tiny_llama):
    """As transformers loads a file of `gate_up_proj` into two modules: the way back needs both."""
    model = load_causal_lm(str(tiny_llama)).model
    halves = ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
    model._weight_conversions = [WeightConverter("mlp.gate_up_proj.weight", halves, operations=[Chunk(dim=0)])]
    expected = load_file(tiny_llama / "model.safetensors")
    for layer in range(2):
        gate, up = (expected.pop(f"model.layers.{layer}.{name}") for name in halves)
        expected[f"model.layers.{layer}.mlp.gate_up_proj.weight"] = torch.cat([gate, up])
    same(tensors_of(model), expected)


@pytest.mark.parametrize("variant", ["lora", "dora", "rslora"])
def test_adapters_are_merged_as_peft_merges_them_and_the_base_is_only_read(tiny_neox, variant):
    packed = load_causal_lm(str(tiny_neox))
    add_lora(packed, LoraSection(rank=3, alpha=7, variant=variant))
    moved(packed.model)
    before = {name: value.clone() for name, value in packed.model.named_parameters()}
    found = tensors_of(packed.model)
    after = dict(packed.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    merged = packed.model.merge_and_unload()
    plain = {name: value.detach() for name, value in merged.named_parameters()}
    plain["embed_out.weight"] = plain.pop("lm_head.weight")
    same(found, plain, atol=1e-6)
    assert not torch.equal(
        found["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"],
        load_file(tiny_neox / "model.safetensors")["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"],
    )


def test_a_bfloat16_base_is_rounded_once(tiny_neox):
    """weight + delta in float32, then rounded: by hand for one layer."""
    packed = load_causal_lm(str(tiny_neox), dtype="bfloat16")
    add_lora(packed, LoraSection(rank=2, targets=["dense"]))
    moved(packed.model)
    layer = packed.model.get_base_model().gpt_neox.layers[0].attention.dense
    delta = layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float() * 8  # alpha 16 / rank 2
    expected = (layer.base_layer.weight.float() + delta).bfloat16()
    found = tensors_of(packed.model, torch.bfloat16)["gpt_neox.layers.0.attention.dense.weight"]
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-3)


def test_a_shared_backbone_gives_the_weights_of_the_active_role(tiny_neox):
    packed = load_causal_lm(str(tiny_neox))
    settings = LoraConfig(r=2, lora_alpha=4, target_modules=["dense"], task_type="CAUSAL_LM")
    backbone = SharedBackbone(packed, settings)
    backbone.add_adapter("critic", settings)
    moved(packed.model)
    name = "gpt_neox.layers.0.attention.dense.weight"
    layer = packed.model.get_base_model().gpt_neox.layers[0].attention.dense
    for role in ("actor", "critic"):
        backbone.select(role)
        delta = layer.lora_B[role].weight @ layer.lora_A[role].weight * 2
        torch.testing.assert_close(tensors_of(packed.model)[name], (layer.base_layer.weight + delta).detach())
    backbone.select("reference")  # no adapter: the backbone as it is
    same(tensors_of(packed.model), load_file(tiny_neox / "model.safetensors"))


def test_a_four_bit_base_is_dequantised(tiny_neox):
    packed = load_causal_lm(str(tiny_neox), quantize="4bit")
    add_lora(packed, LoraSection(rank=2, targets=["dense"]))
    found = tensors_of(packed.model)
    rounded = dequantized_weights(packed.model.get_base_model())
    assert len(rounded) > 4
    for name, value in rounded.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)  # a new adapter adds nothing


def moved(model):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name and parameter.ndim > 1:
                parameter.normal_(0, 0.2, generator=generator)


def test_buckets_hold_whole_groups_up_to_the_limit(tiny_neox):
    groups = weight_groups(load_causal_lm(str(tiny_neox)).model)
    limit = 4000
    parts = list(buckets(groups, limit))
    assert [group for part in parts for group in part] == groups
    assert all(len(part) == 1 or sum(group.count() for group in part) <= limit for part in parts)
    assert 1 < len(parts) < len(groups)


def test_the_shared_buffer_holds_every_tensor_aligned_and_leaves_no_file():
    tensors = {"a": torch.arange(3.0), "b": torch.tensor([[1.5, 2.5]], dtype=torch.bfloat16), "c": torch.ones(0)}
    assert placed(tensors) == ([["a", "float32", [3], 0, 12], ["b", "bfloat16", [1, 2], 64, 4], ["c", "float32", [0],
        128, 0]], 128)  # fmt: skip
    memory = SharedMemory(bucket_room(16, 3))
    path = memory.describe()["path"]
    memory.opened()
    assert not Path(path).exists()
    bucket = memory.fill(tensors)
    found = dict(views(memory._buffer, bucket))
    assert torch.equal(found["b"], tensors["b"])
    del found
    memory.close()
