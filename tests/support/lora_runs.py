"""Run folders as LoRA runs leave them: adapter/ and the merged model/. The updates are random, not small."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from rlhf.artifacts.export import save_model
from rlhf.config.sections import LoraSection
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.models.adapters import add_lora
from rlhf.models.loading import PackedModel, load_causal_lm, load_scalar_model

LORA = LoraSection(rank=3, alpha=6, targets=["query_key_value", "dense_h_to_4h"])


def make_lora_run(
    base: Path,
    run: Path,
    tokenizer: ChatTokenizer,
    *,
    stage: str,
    seed: int,
    lora: LoraSection = LORA,
    score_offset: float = 0.0,
) -> Path:
    """A run of stage sft or reward on `base`; its scores are shifted by `score_offset`."""
    scalar = stage == "reward"
    model: PackedModel = load_scalar_model(str(base), new_head=True) if scalar else load_causal_lm(str(base))
    add_lora(model, lora)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or ".score." in name:
                parameter.normal_(0, 0.2, generator=generator)
    weights = {name: value.detach().clone() for name, value in model.model.state_dict().items()}
    run.mkdir(parents=True)
    options = {"dtype": "float32", "base_path": str(base), "score_offset": score_offset}
    save_model(model, weights, run / "model", tokenizer, **options)  # type: ignore[arg-type]
    manifest = json.dumps({"stage": stage, "parents": {}, "data": []})
    for folder in (run, run / "model"):
        (folder / "manifest.json").write_text(manifest, encoding="utf-8")
    return run
