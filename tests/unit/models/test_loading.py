"""Model folders: old layouts load exactly, incomplete ones not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, OPTConfig

from rlhf.errors import ModelError
from rlhf.models.loading import (
    PackedCausalLM,
    PackedScalarModel,
    artifact_model_path,
    check_model_path,
    count_parameters,
    load_causal_lm,
    load_scalar_model,
    without_dropout,
)
from rlhf.ops.segments import Segment, Segments

IDS = torch.tensor([[5, 9, 300, 42, 7, 250, 3]])
ROW = (IDS, torch.arange(7)[None], Segments((Segment(0, 7),)), torch.arange(7))


def eager(folder: Path, kind=AutoModelForCausalLM):
    return kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def edited(folder: Path, to: Path, *, weights=None, config=None) -> Path:
    """A copy whose weights and configuration went through these functions."""
    shutil.copytree(folder, to)
    if weights is not None:
        tensors = load_file(to / "model.safetensors")
        weights(tensors)
        save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    if config is not None:
        values = json.loads((to / "config.json").read_text())
        config(values)
        (to / "config.json").write_text(json.dumps(values))
    return to


# Polyglot-ko as EleutherAI published it: float16, sharded .bin files, buffers that transformers has since dropped


def polyglot_folder(source, to: Path, *, drop: str = "") -> Path:
    state = {}
    for name, tensor in source.state_dict().items():
        state["embed_out.weight" if name == "lm_head.weight" else name] = tensor.half()
    positions, rotary = 256, 4  # a head of 8, half of it rotary
    for layer in range(2):
        prefix = f"gpt_neox.layers.{layer}.attention"
        state[f"{prefix}.bias"] = torch.ones(1, 1, positions, positions, dtype=torch.uint8).tril()
        state[f"{prefix}.masked_bias"] = torch.tensor(-1e9).half()
        state[f"{prefix}.rotary_emb.inv_freq"] = 1.0 / 10000 ** (torch.arange(0, rotary, 2) / rotary)
    state.pop(drop, None)
    to.mkdir()
    names = sorted(state)
    shards = [names[0::3], names[1::3], names[2::3]]
    where = {}
    for number, part in enumerate(shards, 1):
        file = f"pytorch_model-{number:05d}-of-00003.bin"
        torch.save({name: state[name].clone() for name in part}, to / file)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in state.values())}, "weight_map": where}
    (to / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": positions,
        "model_type": "gpt_neox",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.5,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.23.1",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": 400,
    }
    (to / "config.json").write_text(json.dumps(config))
    return to


@pytest.fixture
def rounded(tiny_neox):
    """The model whose weights the old folder holds, each rounded to half precision."""
    model = eager(tiny_neox)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model


@torch.no_grad()
def test_polyglots_old_layout_loads_exactly(rounded, tmp_path):
    model = load_causal_lm(str(polyglot_folder(rounded, tmp_path / "old"))).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model(*ROW), rounded(IDS).logits[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_rotary_share_of_the_old_config_is_read(rounded, tmp_path):
    # were rotary_pct ignored, the default of 0.25 would rotate half as much and the test above would have to fail
    folder = polyglot_folder(rounded, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rotary_pct": 0.25}))
    other = load_causal_lm(str(folder)).eval()(*ROW)
    assert (other - rounded(IDS).logits[0]).abs().max() > 1e-2


def test_an_old_layout_without_its_head_is_refused(rounded, tmp_path):
    folder = polyglot_folder(rounded, tmp_path / "old", drop="embed_out.weight")
    with pytest.raises(ModelError, match=r"lacks 1 weights of a GPTNeoXForCausalLM: (embed_out|lm_head)\.weight"):
        load_causal_lm(str(folder))


@pytest.mark.parametrize("family", ["tiny_neox", "tiny_llama"])
@torch.no_grad()
def test_our_forward_is_transformers_forward(family, request):
    folder = request.getfixturevalue(family)
    torch.testing.assert_close(
        load_causal_lm(str(folder)).eval()(*ROW), eager(folder)(IDS).logits[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("family", ["tiny_neox", "tiny_llama"])
@torch.no_grad()
def test_noise_is_added_to_the_embeddings(family, request):
    folder = request.getfixturevalue(family)
    noise, plain = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(1)), eager(folder)
    expected = plain(inputs_embeds=plain.get_input_embeddings()(IDS) + noise).logits[0]
    got = load_causal_lm(str(folder)).eval()(*ROW, noise=noise)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_forward_pass_keeps_no_cache(tiny_neox):
    model, caches = load_causal_lm(str(tiny_neox)).eval(), []
    model.model.gpt_neox.register_forward_hook(lambda module, given, output: caches.append(output.past_key_values))
    model(*ROW)
    assert caches == [None]


# Missing weights


@pytest.mark.parametrize(
    ("family", "saved_as", "named"),
    [
        ("tiny_neox", "embed_out.weight", "(embed_out|lm_head).weight"),
        ("tiny_llama", "lm_head.weight", "lm_head.weight"),
        ("tiny_llama", "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"),
        ("tiny_neox", "gpt_neox.final_layer_norm.bias", "gpt_neox.final_layer_norm.bias"),
    ],
)
def test_a_missing_weight_is_an_error(family, saved_as, named, request, tmp_path):
    folder = edited(request.getfixturevalue(family), tmp_path / "m", weights=lambda tensors: tensors.pop(saved_as))
    with pytest.raises(ModelError, match=f"lacks 1 weights of a .*{named}") as caught:
        load_causal_lm(str(folder))
    assert str(folder) in str(caught.value)


def test_a_weight_of_another_shape_is_an_error(tiny_llama, tmp_path):
    def shrink(tensors):
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:300].clone()

    with pytest.raises(ModelError):
        load_causal_lm(str(edited(tiny_llama, tmp_path / "m", weights=shrink)))


def test_a_folder_without_weights_is_an_error(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot load"):
        load_causal_lm(str(tmp_path / "m"))


def test_a_damaged_weight_file_is_an_error(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "m")
    whole = (tmp_path / "m" / "model.safetensors").read_bytes()
    (tmp_path / "m" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot load"):
        load_causal_lm(str(tmp_path / "m"))


@pytest.mark.parametrize("family", ["tiny_neox", "tiny_llama"])
def test_a_causal_lm_is_no_scalar_model(family, request):
    folder = str(request.getfixturevalue(family))
    with pytest.raises(ModelError, match=r"lacks 1 weights of a .*ForSequenceClassification: score\.weight"):
        load_scalar_model(folder)
    model = load_scalar_model(folder, new_head=True)
    assert isinstance(model, PackedScalarModel)
    assert model.model.score.weight.shape == (1, 32)


def test_a_new_head_excuses_no_other_weight(tiny_neox, tmp_path):
    folder = edited(tiny_neox, tmp_path / "m", weights=lambda tensors: tensors.pop("gpt_neox.final_layer_norm.weight"))
    with pytest.raises(ModelError, match="final_layer_norm"):
        load_scalar_model(str(folder), new_head=True)


def test_a_scalar_model_is_no_causal_lm(tiny_reward):
    with pytest.raises(ModelError, match="lacks 1 weights of a GPTNeoXForCausalLM"):
        load_causal_lm(str(tiny_reward))


def test_a_classifier_with_two_labels_is_no_scalar_model(tiny_reward, tmp_path):
    def two(tensors):
        tensors["score.weight"] = torch.ones(2, 32)

    labels = {"id2label": {"0": "나쁨", "1": "좋음"}, "label2id": {"나쁨": 0, "좋음": 1}}
    folder = edited(tiny_reward, tmp_path / "m", weights=two, config=lambda values: values.update(labels))
    with pytest.raises(ModelError):
        load_scalar_model(str(folder))


# What loading changes


def test_dropout_is_off_by_any_name() -> None:
    gpt2, opt = GPT2Config(), OPTConfig(layerdrop=0.2)
    for config in (gpt2, opt):
        without_dropout(config)
    assert (gpt2.resid_pdrop, gpt2.embd_pdrop, gpt2.attn_pdrop, opt.layerdrop, opt.dropout) == (0, 0, 0, 0, 0)


def test_dropout_is_off(tiny_neox, tmp_path):
    dropouts = {"hidden_dropout": 0.3, "attention_dropout": 0.2, "classifier_dropout": 0.1}
    folder = edited(tiny_neox, tmp_path / "m", config=lambda values: values.update(dropouts))
    model = load_causal_lm(str(folder)).train()
    found = {name: value for name, value in model.model.config.to_dict().items() if "dropout" in name}
    assert set(found.values()) == {0.0}
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))
    with torch.no_grad():
        assert torch.equal(model(*ROW), model(*ROW))
        assert torch.equal(model(*ROW), model.eval()(*ROW))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_number_type(dtype, tiny_neox):
    model = load_causal_lm(str(tiny_neox), dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


@torch.no_grad()
def test_the_score_shift_of_the_config_is_applied(tiny_reward, tmp_path):
    folder = edited(tiny_reward, tmp_path / "m", config=lambda values: values.update(score_shift=-1.5))
    plain = eager(folder, AutoModelForSequenceClassification)(IDS).logits[0]
    row = (*ROW[:3], torch.tensor([6]))
    torch.testing.assert_close(load_scalar_model(str(folder)).eval()(*row), plain - 1.5, rtol=0, atol=1e-5)
    torch.testing.assert_close(load_scalar_model(str(tiny_reward)).eval()(*row), plain, rtol=0, atol=1e-5)


def test_the_context_is_active_while_weights_are_read(tiny_neox):
    events = []

    class Context:
        def __enter__(self):
            events.append("in")

        def __exit__(self, *_):
            events.append("out")

    load_causal_lm(str(tiny_neox), context=Context)
    assert events == ["in", "out"]


def test_parameters_are_counted():
    model = PackedCausalLM(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)))
    model.model[0].requires_grad_(False)
    assert count_parameters(model) == (12 + 4 + 8 + 2, 10)


# Paths


@pytest.mark.parametrize(
    ("path", "problem", "fix"),
    [
        ("", "no model is named", "set model.path=FOLDER or a hub id"),
        ("./kullm", "no such folder: ./kullm", "check the path"),
        ("/nowhere/kullm", "no such folder: /nowhere/kullm", "check the path"),
        ("~/kullm", "no such folder: ~/kullm", "check the path"),
        ("kullm", "no such folder: kullm", "check the path"),
        ("runs/none", "no such folder: runs/none", "check the path"),
        ("runs/none/base", "no such folder: runs/none/base", "rlhf base tiny"),
        ("runs/none/sft/model", "no such folder: runs/none/sft/model", "rlhf quickstart"),
    ],
)
def test_a_path_that_leads_nowhere(path, problem, fix):
    with pytest.raises(ModelError) as caught:
        check_model_path(path, key="model.path")
    assert caught.value.problem == problem
    assert caught.value.where == "model.path"
    assert fix in caught.value.fix


def test_good_paths_pass(tiny_neox):
    check_model_path(str(tiny_neox), key="model.path")
    check_model_path("EleutherAI/polyglot-ko-1.3b", key="model.path")


def test_a_run_folder_is_told_from_its_model(tmp_path, tiny_neox):
    shutil.copytree(tiny_neox, tmp_path / "run" / "model")
    run = str(tmp_path / "run")
    with pytest.raises(ModelError, match=r"holds no config\.json") as caught:
        check_model_path(run, key="reward.path")
    assert f"use {run}/model" in caught.value.fix
    assert artifact_model_path(run) == f"{run}/model"
    assert artifact_model_path(str(tiny_neox)) == str(tiny_neox)
    assert artifact_model_path("EleutherAI/polyglot-ko-1.3b") == "EleutherAI/polyglot-ko-1.3b"
    assert artifact_model_path("") == ""
