"""Architectures through every stage: two steps each, at ZeRO 0 and 3, whole weights and LoRA, then read by plain
transformers. One row is in `make test`, all of them in `make test-models`."""

from __future__ import annotations

import json
import re
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf.artifacts.export import load_packed
from rlhf.ops.segments import Segment, Segments
from tests.integration.conftest import read_lines
from tests.integration.starts import Starter
from tests.support.model_matrix import ARCHITECTURES, save_model

QUICK = ("gemma3", 3, "whole")
ROWS = [(name, stage, kind) for name in ARCHITECTURES for stage in (0, 3) for kind in ("whole", "lora")]
TIED = {"qwen2", "qwen3", "gemma3", "gpt2", "exaone4"}
EMBEDDING = re.compile(r"\.(embed_tokens|embed_in|wte)\.weight$")
PROVED = re.compile(r"^export: \d+ names(, 1 of them tied)?, [\d.]+ MiB in float32: as a \w+ expects$", re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "zero_stage", "kind"),
    [pytest.param(*row, id="-".join(map(str, row)), marks=() if row == QUICK else pytest.mark.models) for row in ROWS],
)
def test_every_stage(name, zero_stage, kind, starter: Starter, configs, tiny_tokenizer, tmp_path):
    base = save_model(name, tmp_path / "base", tiny_tokenizer)
    alike = [f"deepspeed.zero_stage={zero_stage}", "run.max_steps=2"]
    alike += ["model.lora.rank=4"] if kind == "lora" else []
    words = {
        "sft": [f"model.path={base}"],
        "reward": [f"model.path={tmp_path}/sft"],
        "ppo": [f"actor.path={tmp_path}/sft", f"reward.path={tmp_path}/reward", "reward.min_accuracy=null"],
    }
    words["ppo"] += ["control.enabled=false"]
    words["dpo"] = [f"model.path={tmp_path}/sft"]
    for stage, own in words.items():
        said = starter.run(stage, "--config", configs[stage], f"run.dir={tmp_path}/{stage}", *own, *alike)
        found = PROVED.search(said)
        assert found is not None
        assert bool(found.group(1)) == (name in TIED and stage != "reward")  # a one-number head is not tied
        if stage == "reward":
            assert "the new head starts quiet" in said
    first = read_lines(tmp_path / "reward" / "metrics.jsonl")[0]["loss"]
    assert first == pytest.approx(log(2), abs=0.03)
    require_changed(base, tmp_path / "sft" / "model", kind)
    for stage in ("ppo", "dpo"):
        require_changed(tmp_path / "sft" / "model", tmp_path / stage / "model", kind)
    for stage in words:
        require_plain(tmp_path / stage / "model", scalar=stage == "reward", tied=name in TIED)
        if kind == "lora":
            assert (tmp_path / stage / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.models
@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_tied_weights_are_those_of_no_partitioning(name, starter: Starter, configs, tiny_tokenizer, tmp_path):
    base = save_model(name, tmp_path / "base", tiny_tokenizer)
    for stage in (0, 3):
        words = [f"model.path={base}", f"run.dir={tmp_path}/z{stage}", f"deepspeed.zero_stage={stage}"]
        starter.run("sft", "--config", configs["sft"], *words, "run.max_steps=2")
    plain, partitioned = (
        without_key_biases(load_file(tmp_path / folder / "model" / "model.safetensors")) for folder in ("z0", "z3")
    )
    assert plain.keys() == partitioned.keys()
    torch.testing.assert_close(plain, partitioned, atol=1e-6, rtol=1e-4)


def without_key_biases(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """GPT-2's key bias adds one number to all scores of a query: its gradient is 0 but for rounding, and Adam makes a
    step of it. The query's and the value's are kept."""
    found = {}
    for name, weight in weights.items():
        parts = weight.chunk(3) if name.endswith("attn.c_attn.bias") else (weight,)
        found[name] = torch.cat([parts[0], *parts[2:]])
    return found


def require_changed(before: Path, after: Path, kind: str) -> None:
    """Weights differ; of whole weights the embeddings too, which a tied head shares."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    changed = {name for name, weight in new.items() if name in old and not torch.equal(old[name], weight)}
    assert changed
    embeddings = [name for name in new if EMBEDDING.search(name)]
    assert len(embeddings) == 1
    assert kind == "lora" or embeddings[0] in changed


@torch.no_grad()
def require_plain(folder: Path, *, scalar: bool, tied: bool) -> None:
    """Plain transformers reads every weight, and computes what packed rows do."""
    auto: Any = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    if not scalar:
        same = model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
        assert same == tied
    (ids,) = AutoTokenizer.from_pretrained(folder)(["비 좋아요? 네, 좋아요!"])["input_ids"]
    row = torch.tensor([ids])
    found = model.eval()(row, use_cache=False).logits[0]
    packed = load_packed(str(folder), scalar=scalar).eval()
    length = len(ids)
    expected = packed(row, torch.arange(length)[None], Segments((Segment(0, length),)), torch.arange(length))
    if scalar:  # plain transformers scores the last token, and knows nothing of a shift in the configuration
        shift = float(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("score_shift", 0.0))
        found, expected = found + shift, expected[-1:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
