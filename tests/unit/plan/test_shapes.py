"""Shapes against the models themselves, made on the meta device."""

import json

import pytest
import torch
from transformers import (
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto import AutoConfig, AutoModelForCausalLM

from rlhf.config.sections import LoraSection
from rlhf.errors import ModelError
from rlhf.models.adapters import add_lora
from rlhf.models.loading import PackedCausalLM, count_parameters
from rlhf.plan.shapes import BUILT_IN, GATED, shape_of

NEOX = GPTNeoXConfig(
    vocab_size=96, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192,
    tie_word_embeddings=False,
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=96, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=80, tie_word_embeddings=False,
)  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma": GemmaConfig,
    "gemma2": Gemma2Config,
    "gemma3_text": Gemma3TextConfig,
    "exaone4": Exaone4Config,
    "phi3": Phi3Config,
}
GPT2 = GPT2Config(vocab_size=96, n_embd=48, n_layer=3, n_head=4, n_positions=32)


@pytest.mark.parametrize(
    ("config", "kind"), [(NEOX, GPTNeoXForCausalLM), (LLAMA, LlamaForCausalLM), (GPT2, GPT2LMHeadModel)]
)
def test_a_config_gives_as_many_parameters_as_the_model_has(config, kind, tmp_path):
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = kind(config)
    expected = sum(parameter.numel() for parameter in model.parameters())

    assert shape_of(str(tmp_path)).parameters == expected


@pytest.mark.parametrize("kind", GATED)
@pytest.mark.parametrize("tied", [True, False])
def test_norms_and_biases_of_every_gated_architecture_are_counted(kind, tied, tmp_path):
    config = CONFIGS[kind](
        vocab_size=96, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=80, tie_word_embeddings=tied, pad_token_id=0,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)

    assert shape_of(str(tmp_path)).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["gemma", "gemma2", "gemma3_text", "llama", "qwen3"])
def test_a_config_without_the_key_is_tied_as_its_family_is(kind, tmp_path):
    """The configurations of Gemma on the hub leave it out; those of others mean a head of its own."""
    content = CONFIGS[kind](
        vocab_size=96, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80, pad_token_id=0
    ).to_dict()
    content.pop("tie_word_embeddings", None)
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    expected = AutoConfig.from_pretrained(tmp_path).tie_word_embeddings

    assert shape_of(str(tmp_path)).tied == expected == kind.startswith("gemma")


def test_an_architecture_without_a_vocabulary_of_its_own_is_not_known(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gemma3", "text_config": {}}', encoding="utf-8")
    with pytest.raises(ModelError, match="'gemma3' cannot be planned"):
        shape_of(str(tmp_path))


@pytest.mark.parametrize(("config", "kind"), [(NEOX, GPTNeoXForCausalLM), (LLAMA, LlamaForCausalLM)])
@pytest.mark.parametrize("rank", [1, 8])
def test_adapters_are_counted_as_peft_makes_them(config, kind, rank, tmp_path):
    config.save_pretrained(tmp_path)
    wrapped = PackedCausalLM(kind(config))
    add_lora(wrapped, LoraSection(rank=rank))

    assert shape_of(str(tmp_path)).adapter_parameters(rank, "all-linear") == count_parameters(wrapped)[1]


def test_a_named_target_is_counted_alone():
    # query_key_value of 5.8b: 28 layers x 8 x (4096 + 12288)
    assert BUILT_IN["5.8b"].adapter_parameters(8, ["query_key_value"]) == 28 * 8 * (4096 + 3 * 4096)


@pytest.mark.parametrize(
    ("path", "billions"),
    [
        ("EleutherAI/polyglot-ko-1.3b", 1.33),
        ("EleutherAI/polyglot-ko-3.8b", 3.81),
        ("EleutherAI/polyglot-ko-5.8b", 5.89),
        ("nlpai-lab/kullm-polyglot-12.8b-v2", 12.89),
    ],
)
def test_known_models_are_found_by_name(path, billions):
    assert shape_of(path).parameters == pytest.approx(billions * 1e9, rel=0.005)  # as their model cards round them


@pytest.mark.parametrize("path", ["", "gpt-x", "runs/q/sft", "other/model-5.8b", "polyglot-ko-15.8b"])
def test_an_unknown_name_has_no_shape(path):
    assert shape_of(path) is None


def test_a_run_folder_is_read_through_its_model(tmp_path):
    NEOX.save_pretrained(tmp_path / "model")
    assert shape_of(str(tmp_path)).layers == 3


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"model_type": "mamba", "vocab_size": 5}), "{}"])
def test_a_config_that_cannot_be_planned_is_refused_by_file(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        shape_of(str(tmp_path))
