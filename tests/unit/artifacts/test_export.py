"""An exported model is the live model: by our loader, by plain transformers, and refused when it is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from rlhf.artifacts.export import check_adapter, check_export, reload_device, save_model
from rlhf.config.sections import LoraSection, SamplingSection
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow, first_tokens, pack_sequences
from rlhf.data.templates import PRESETS
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.errors import ArtifactError, ModelError
from rlhf.models.adapters import add_lora
from rlhf.models.loading import PackedModel, PackedScalarModel, load_causal_lm, load_scalar_model

FAMILIES = pytest.mark.parametrize("family", ["tiny_neox", "tiny_llama"])
SEQUENCES = [[5, 9, 300, 42, 7], [250, 3, 77]]
SAMPLING = SamplingSection(max_new_tokens=33, temperature=0.7, top_k=20, top_p=0.9)


def packed_row() -> PackedRow:
    """Two sequences; read before every token but the first of each."""
    mask = torch.ones(9, dtype=torch.bool).numpy()
    sequences = [EncodedSequence(torch.tensor(ids, dtype=torch.int32).numpy(), mask[: len(ids)]) for ids in SEQUENCES]
    return pack_sequences(sequences)


@torch.no_grad()
def output(model: PackedModel, row: PackedRow) -> torch.Tensor:
    return model.eval()(row.input_ids, row.position_ids, row.segments, row.positions)


@torch.no_grad()
def train(model: PackedModel, seed: int = 4) -> PackedModel:
    """Moves every trainable weight, as optimizer steps would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


def weights_of(model: PackedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.model.state_dict().items()}


def export(model: PackedModel, folder: Path, tokenizer: ChatTokenizer, base: Path, **options) -> Path:
    settings = {"dtype": "float32", "base_path": str(base), "sampling": SAMPLING} | options
    save_model(model, weights_of(model), folder / "model", tokenizer, **settings)
    return folder / "model"


@torch.no_grad()
def by_transformers(folder: Path, kind=AutoModelForCausalLM) -> torch.Tensor:
    """The outputs by plain transformers, a sequence at a time."""
    model = kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    return torch.cat([model(torch.tensor([ids])).logits[0, :-1] for ids in SEQUENCES])


@FAMILIES
def test_a_full_model_reloads_as_it_was(family, request, chat_tokenizer, tmp_path):
    base = request.getfixturevalue(family)
    live = train(load_causal_lm(str(base)))
    expected = output(live, packed_row())
    folder = export(live, tmp_path, chat_tokenizer, base)
    assert check_export(folder, packed_row(), expected, scalar=False, dtype="float32") <= 1e-5
    torch.testing.assert_close(by_transformers(folder), expected, rtol=1e-5, atol=1e-5)
    assert (by_transformers(base) - expected).abs().max() > 0.1  # training did change something
    assert not (tmp_path / "adapter").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_gpt_neoxs_head_survives_its_renaming(tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    head = torch.randn(400, 32, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        live.model.get_output_embeddings().weight.copy_(head)
    folder = export(live, tmp_path, chat_tokenizer, tiny_neox)
    tensors = load_file(folder / "model.safetensors")
    assert torch.equal(tensors["embed_out.weight"], head)  # the name Polyglot-ko and vLLM use
    assert "lm_head.weight" not in tensors
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(plain.get_output_embeddings().weight, head)


@pytest.mark.parametrize("targets", ["all-linear", ["query_key_value"]])
def test_an_adapter_is_merged_exactly_and_kept(targets, tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    add_lora(live, LoraSection(rank=2, alpha=8, targets=targets))
    train(live)
    expected = output(live, packed_row())
    folder = export(live, tmp_path, chat_tokenizer, tiny_neox)
    assert check_export(folder, packed_row(), expected, scalar=False, dtype="float32") <= 1e-5
    torch.testing.assert_close(by_transformers(folder), expected, rtol=1e-5, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(tiny_neox)
    plain = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()  # the adapter alone, by plain peft
    with torch.no_grad():
        alone = torch.cat([plain(torch.tensor([ids])).logits[0, :-1] for ids in SEQUENCES])
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)
    names = load_file(folder / "model.safetensors").keys()
    assert not any("lora" in name for name in names)


@pytest.mark.parametrize("with_lora", [False, True])
@pytest.mark.parametrize("offset", [0.0, -1.75])
def test_a_scalar_model_reloads_with_its_head_and_shift(with_lora, offset, tiny_neox, chat_tokenizer, tmp_path):
    live = load_scalar_model(str(tiny_neox), new_head=True)  # stage 2 starts from a causal LM
    if with_lora:
        add_lora(live, LoraSection(rank=2, alpha=8))
    train(live)
    expected = output(live, packed_row()) + offset
    folder = export(live, tmp_path, chat_tokenizer, tiny_neox, sampling=None, score_offset=offset)
    assert check_export(folder, packed_row(), expected, scalar=True, dtype="float32") <= 1e-5
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    assert model.config.num_labels == 1
    with torch.no_grad():  # plain transformers reads the last token: the second sequence is read last at its end
        last = torch.cat([model(torch.tensor([ids[:-1]])).logits[0] for ids in SEQUENCES])
    torch.testing.assert_close(last, expected[[3, 5]], rtol=1e-5, atol=1e-5)  # 4 + 2 places: the last of each


@pytest.mark.parametrize("with_lora", [False, True])
def test_a_llama_reward_keeps_its_shift_in_the_config(with_lora, tiny_llama, chat_tokenizer, tmp_path):
    live = load_scalar_model(str(tiny_llama), new_head=True)
    if with_lora:
        add_lora(live, LoraSection(rank=2, alpha=8))
    train(live)
    expected = output(live, packed_row()) + 2.5
    folder = export(live, tmp_path, chat_tokenizer, tiny_llama, sampling=None, score_offset=2.5)
    assert check_export(folder, packed_row(), expected, scalar=True, dtype="float32") <= 1e-5
    assert json.loads((folder / "config.json").read_text())["score_shift"] == 2.5


# Refused


def test_an_adapter_that_was_never_trained_is_refused(tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    add_lora(live, LoraSection(rank=2, alpha=8))  # B is still zero: the model is its base
    with pytest.raises(ArtifactError, match="0 of them a non-zero update"):
        export(live, tmp_path, chat_tokenizer, tiny_neox)
    assert not (tmp_path / "model").exists()


def test_an_empty_adapter_is_refused(tmp_path):
    save_file({}, tmp_path / "adapter_model.safetensors")  # five of these were evaluated as models in 2023
    with pytest.raises(ArtifactError, match="holds 0 tensors"):
        check_adapter(tmp_path)


def test_an_adapter_with_a_trained_a_alone_is_refused(tmp_path):
    tensors = {"m.lora_A.weight": torch.ones(2, 4), "m.lora_B.weight": torch.zeros(4, 2)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ArtifactError, match="2 tensors, 0 of them"):
        check_adapter(tmp_path)
    tensors["m.lora_B.weight"][3, 1] = 1e-6
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    check_adapter(tmp_path)


@pytest.mark.parametrize("name", ["embed_out.weight", "gpt_neox.layers.1.attention.dense.weight"])
@pytest.mark.parametrize("damage", [lambda t: t[0].add_(0.02), lambda t: t.fill_(float("nan"))], ids=["shift", "nan"])
def test_a_tampered_export_is_refused(name, damage, tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    folder = export(live, tmp_path, chat_tokenizer, tiny_neox)
    tensors = load_file(folder / "model.safetensors")
    damage(tensors[name])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="computes other numbers than the model that was saved"):
        check_export(folder, packed_row(), output(live, packed_row()), scalar=False, dtype="float32")


def test_an_export_without_its_head_is_refused(tiny_reward, chat_tokenizer, tmp_path):
    live = load_scalar_model(str(tiny_reward))
    folder = export(live, tmp_path, chat_tokenizer, tiny_reward, sampling=None)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("score.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="score"):
        check_export(folder, packed_row(), output(live, packed_row()), scalar=True, dtype="float32")


def test_weights_that_are_not_the_models_are_refused(tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    weights = weights_of(live)
    weights.pop("lm_head.weight")  # strict=False would keep a random head in silence
    with pytest.raises(RuntimeError, match="lm_head"):
        save_model(live, weights, tmp_path / "model", chat_tokenizer, dtype="float32", base_path=str(tiny_neox))


# What else is in the folder


def test_tokenizer_and_template_are_saved(tiny_neox, chat_tokenizer, tmp_path):
    folder = export(train(load_causal_lm(str(tiny_neox))), tmp_path, chat_tokenizer, tiny_neox)
    assert AutoTokenizer.from_pretrained(folder).chat_template == PRESETS["kullm"]
    assert load_tokenizer(str(folder)).fingerprint() == chat_tokenizer.fingerprint()


@FAMILIES
def test_decoding_settings_are_saved(family, request, chat_tokenizer, tmp_path):
    base = request.getfixturevalue(family)
    folder = export(load_causal_lm(str(base)), tmp_path, chat_tokenizer, base)
    settings = GenerationConfig.from_pretrained(folder)
    assert (settings.eos_token_id, settings.pad_token_id) == (0, 1)
    assert (settings.do_sample, settings.max_new_tokens) == (True, 33)
    assert (settings.temperature, settings.top_k, settings.top_p) == (0.7, 20, 0.9)
    config = json.loads((folder / "config.json").read_text())
    assert (config["eos_token_id"], config["pad_token_id"]) == (0, 1)


@pytest.mark.parametrize("with_lora", [False, True])
def test_greedy_settings_are_saved_over_a_base_that_samples(with_lora, tiny_neox, chat_tokenizer, tmp_path):
    shutil.copytree(tiny_neox, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"eos_token_id": 2, "pad_token_id": 2}))
    GenerationConfig(do_sample=True, temperature=0.6, top_p=0.8, eos_token_id=2).save_pretrained(tmp_path / "base")
    live = load_causal_lm(str(tmp_path / "base"))
    if with_lora:
        add_lora(live, LoraSection(rank=2, alpha=8))
    sampling = SamplingSection(max_new_tokens=5, temperature=0)
    folder = export(train(live), tmp_path, chat_tokenizer, tmp_path / "base", sampling=sampling)
    settings = GenerationConfig.from_pretrained(folder)
    assert not settings.do_sample
    assert (settings.max_new_tokens, settings.eos_token_id) == (5, 0)
    config = json.loads((folder / "config.json").read_text())
    assert (config["eos_token_id"], config["pad_token_id"]) == (0, 1)  # three places, one answer
    assert settings.temperature in (None, 1.0)  # nothing of the base's own settings is left


def test_sampling_without_cuts_is_saved_as_such(tiny_neox, chat_tokenizer, tmp_path):
    folder = export(load_causal_lm(str(tiny_neox)), tmp_path, chat_tokenizer, tiny_neox, sampling=SamplingSection())
    settings = GenerationConfig.from_pretrained(folder)
    # top_k 0 must be written: transformers' own default keeps 50 tokens
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 1.0, 0, 1.0)


@pytest.mark.parametrize("with_lora", [False, True])
def test_a_vocabulary_that_was_extended_for_padding_is_exported_whole(with_lora, tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    live.model.resize_token_embeddings(401, mean_resizing=False)
    if with_lora:
        add_lora(live, LoraSection(rank=2, alpha=8))
    train(live)
    expected = output(live, packed_row())
    folder = export(live, tmp_path, chat_tokenizer, tiny_neox)
    assert check_export(folder, packed_row(), expected, scalar=False, dtype="float32") <= 1e-5


def test_half_precision_is_saved_as_such(tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox), dtype="bfloat16")
    expected = output(live, packed_row())
    folder = export(live, tmp_path, chat_tokenizer, tiny_neox, dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    # the same arithmetic on the same numbers: nothing is rounded twice
    assert check_export(folder, packed_row(), expected, scalar=False, dtype="bfloat16") == 0


def test_whole_weights_are_rounded_to_the_type_asked_for(tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    folder = export(live, tmp_path, chat_tokenizer, tiny_neox, dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}


def test_a_second_export_replaces_the_first(tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    folder = export(live, tmp_path, chat_tokenizer, tiny_neox)
    (folder / "stale.txt").write_text("old")
    (tmp_path / ".writing-model").mkdir()
    (tmp_path / ".writing-model" / "half.txt").write_text("left by a crash")
    export(train(live), tmp_path, chat_tokenizer, tiny_neox)
    assert not (folder / "stale.txt").exists()
    assert not (folder / "half.txt").exists()
    assert not (tmp_path / ".writing-model").exists()
    assert check_export(folder, packed_row(), output(live, packed_row()), scalar=False, dtype="float32") <= 1e-5


def test_the_live_model_is_left_as_it_was(tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    add_lora(live, LoraSection(rank=2, alpha=8))
    train(live)
    before, names = output(live, packed_row()), [name for name, _ in live.named_parameters()]
    export(live, tmp_path, chat_tokenizer, tiny_neox)
    assert torch.equal(output(live, packed_row()), before)
    assert [name for name, _ in live.named_parameters()] == names
    assert not isinstance(live, PackedScalarModel)


LAYER = "gpt_neox.layers.{}.attention.query_key_value.weight"
DAMAGES = {
    "layers swapped": lambda tensors, base: {LAYER.format(n): tensors[LAYER.format(1 - n)] for n in (0, 1)},
    "bias lost": lambda tensors, base: {"gpt_neox.layers.1.mlp.dense_4h_to_h.bias": torch.zeros(32)},
    "adapter not merged": lambda tensors, base: {LAYER.format(0): base[LAYER.format(0)]},
    "head scaled": lambda tensors, base: {"embed_out.weight": tensors["embed_out.weight"] * 1.05},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_short_probe_refuses_a_wrong_tensor(damage, tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    with torch.no_grad():
        bias = live.model.gpt_neox.layers[1].mlp.dense_4h_to_h.bias
        bias.copy_(torch.linspace(-0.05, 0.05, 32))  # a constant one would be taken away by the last norm
    start = tmp_path / "start"
    live.model.save_pretrained(start)
    chat_tokenizer.save(start)
    add_lora(live, LoraSection(rank=2, alpha=8, targets=["query_key_value"]))
    train(live)
    probe = first_tokens(packed_row(), 6)
    expected = output(live, probe)
    folder = export(live, tmp_path, chat_tokenizer, start)
    assert check_export(folder, probe, expected, scalar=False, dtype="float32") <= 1e-5
    tensors = load_file(folder / "model.safetensors")
    changed = DAMAGES[damage](tensors, load_file(start / "model.safetensors"))
    assert changed.keys() <= tensors.keys()
    saved = {name: tensor.contiguous() for name, tensor in (tensors | changed).items()}
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="computes other numbers"):
        check_export(folder, probe, expected, scalar=False, dtype="float32")


@pytest.mark.parametrize(("free", "expected"), [(1200, "cuda"), (1199, "cpu")])
def test_a_reload_computes_where_the_live_model_does_if_it_fits(
    free: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of 1,000 bytes in two shards."""
    for name, size in (("model-1.safetensors", 600), ("model-2.safetensors", 400), ("tokenizer.json", 9000)):
        (tmp_path / name).write_bytes(bytes(size))
    monkeypatch.setattr("rlhf.artifacts.export.free_memory", lambda device: free)
    assert reload_device(tmp_path, torch.device("cuda")).type == expected
    assert reload_device(tmp_path, torch.device("cpu")).type == "cpu"
