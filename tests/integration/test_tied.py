"""Models whose head is their embedding, partitioned at ZeRO 3: trained and exported by every stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from tests.conftest import _saved
from tests.integration.starts import Starter

EMBEDDINGS = {"gpt2": "transformer.wte.weight", "qwen2": "model.embed_tokens.weight"}


@pytest.fixture(scope="module", params=[pytest.param("gpt2", marks=pytest.mark.full), "qwen2"])
def tied(request, tmp_path_factory, tiny_tokenizer) -> tuple[str, Path]:
    size = {"vocab_size": len(tiny_tokenizer), "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True}
    if request.param == "gpt2":
        made = GPT2LMHeadModel, GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **size)
    else:
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        made = Qwen2ForCausalLM, Qwen2Config(intermediate_size=64, max_position_embeddings=512, **shape, **size)
    return request.param, _saved(*made, tmp_path_factory.mktemp(request.param), tiny_tokenizer, seed=3)


def test_three_stages_at_zero_3(starter: Starter, configs, tied, tmp_path):
    name, base = tied
    alike = ["deepspeed.zero_stage=3", "run.max_steps=2"]
    starter.run("sft", "--config", configs["sft"], f"model.path={base}", f"run.dir={tmp_path}/sft", *alike)
    words = [f"model.path={tmp_path}/sft", f"run.dir={tmp_path}/reward"]
    starter.run("reward", "--config", configs["reward"], *words, *alike)
    words = [f"actor.path={tmp_path}/sft", f"reward.path={tmp_path}/reward/model", "reward.min_accuracy=null"]
    words += [f"run.dir={tmp_path}/ppo", "control.enabled=false"]
    starter.run("ppo", "--config", configs["ppo"], *words, *alike)
    before = load_file(base / "model.safetensors")[EMBEDDINGS[name]]
    for stage in ("sft", "ppo"):
        exported = AutoModelForCausalLM.from_pretrained(tmp_path / stage / "model", dtype=torch.float32)
        embedding, head = exported.get_input_embeddings().weight, exported.get_output_embeddings().weight
        assert embedding.data_ptr() == head.data_ptr()
        assert embedding.shape == before.shape
        assert not torch.equal(embedding, before)
        before = embedding.detach().clone()


@pytest.mark.full
def test_the_weights_are_those_of_no_partitioning(starter: Starter, configs, tied, tmp_path):
    _, base = tied
    for stage in (0, 3):
        words = [f"model.path={base}", f"run.dir={tmp_path}/z{stage}", f"deepspeed.zero_stage={stage}"]
        starter.run("sft", "--config", configs["sft"], *words, "run.max_steps=2")
    plain, partitioned = (load_file(tmp_path / folder / "model" / "model.safetensors") for folder in ("z0", "z3"))
    assert plain.keys() == partitioned.keys()
    torch.testing.assert_close(plain, partitioned, atol=1e-6, rtol=1e-4)
