"""A trained model as a Hugging Face folder, proved by loading it again.

Weights are gathered, put strictly into a fresh model, saved, loaded from disk and compared with what the live
model computes. An export that differs is an error, not a file.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig, PreTrainedModel

from rlhf.artifacts.files import flush_tree, sha256_of, write_json
from rlhf.config.sections import SamplingSection
from rlhf.data.packing import PackedRow
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import ArtifactError
from rlhf.models.loading import (
    DTYPES,
    PackedModel,
    PackedScalarModel,
    load_causal_lm,
    load_scalar_model,
)
from rlhf.models.scalar_head import shift_scores

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}  # of the largest output


def save_model(
    live: PackedModel,
    weights: dict[str, Tensor],
    folder: Path,
    tokenizer: ChatTokenizer,
    *,
    dtype: str,
    base_path: str,
    sampling: SamplingSection | None = None,
    score_offset: float = 0.0,
) -> None:
    """Writes `folder` (and, for LoRA, `folder/../adapter`) on rank 0.

    Args:
        live: the wrapped model whose configuration is saved; its weights may be partitioned.
        weights: the whole weights, as `TrainedModel.state_dict` gives them.
        base_path: the model the adapters were trained on.
        sampling: decoding settings for generation_config.json.
        score_offset: added to every score of a one-number model (see `shift_scores`).
    """
    writing = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(writing, ignore_errors=True)
    if hasattr(live.model, "peft_config"):
        model: Any = _merged(live, weights, folder.with_name("adapter"), base_path, dtype)
    else:
        model = _fresh(live)
        model.load_state_dict(weights, strict=True, assign=True)
    if score_offset:
        shift_scores(model, score_offset)
    _set_generation(model, tokenizer, sampling)
    model.to(DTYPES[dtype]).save_pretrained(writing)
    tokenizer.save(writing)
    flush_tree(writing)
    if folder.exists():
        shutil.rmtree(folder)
    writing.rename(folder)


def _fresh(live: PackedModel) -> PreTrainedModel:
    """An empty model of the same configuration, outside any partitioning."""
    auto = AutoModelForSequenceClassification if isinstance(live, PackedScalarModel) else AutoModelForCausalLM
    return auto.from_config(live.model.config)


def _merged(
    live: PackedModel, weights: dict[str, Tensor], adapter: Path, base_path: str, dtype: str
) -> PreTrainedModel:
    """Saves the adapter, then merges it into a fresh copy of its base."""
    from peft import PeftModel

    shutil.rmtree(adapter, ignore_errors=True)
    live.model.save_pretrained(adapter, state_dict=weights)
    check_adapter(adapter)
    base_hash = sha256_of(Path(base_path)) if Path(base_path).is_dir() else None
    write_json(adapter / "base.json", {"path": base_path, "sha256": base_hash})
    loader = load_scalar_model if isinstance(live, PackedScalarModel) else load_causal_lm
    options: dict[str, Any] = {"new_head": True} if isinstance(live, PackedScalarModel) else {}
    base = loader(base_path, dtype=dtype, **options).model
    size = live.model.get_input_embeddings().num_embeddings
    if base.get_input_embeddings().num_embeddings != size:
        base.resize_token_embeddings(size, mean_resizing=False)
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    merged.config.__dict__.update(score_shift=float(getattr(live.model.config, "score_shift", 0.0)))
    return merged


def check_adapter(adapter: Path) -> None:
    """Raises ArtifactError for an adapter without tensors, or whose every update is zero."""
    file = adapter / "adapter_model.safetensors"
    with safe_open(str(file), framework="pt") as tensors:
        names = list(tensors.keys())
        changed = [name for name in names if "lora_B" in name and bool(tensors.get_tensor(name).any())]
    if not names or not changed:
        raise ArtifactError(
            f"{file} holds {len(names)} tensors, {len(changed)} of them a non-zero update",
            expected="at least one trained low-rank update: an empty adapter is the base model",
            fix="check model.lora.targets and that the run took optimizer steps",
        )


def _set_generation(model: PreTrainedModel, tokenizer: ChatTokenizer, sampling: SamplingSection | None) -> None:
    """EOS, PAD and decoding settings, the same in configuration, generation configuration and tokenizer."""
    model.config.eos_token_id, model.config.pad_token_id = tokenizer.eos_id, tokenizer.pad_id
    settings = getattr(model, "generation_config", None)
    if settings is None:
        return
    if sampling is not None:  # the base's own decoding settings do not mix with these
        settings = model.generation_config = GenerationConfig(bos_token_id=settings.bos_token_id)
    settings.eos_token_id, settings.pad_token_id = tokenizer.eos_id, tokenizer.pad_id
    if sampling is not None:
        settings.max_new_tokens = sampling.max_new_tokens
        settings.do_sample = sampling.temperature > 0
        if sampling.temperature > 0:
            settings.temperature, settings.top_k, settings.top_p = sampling.temperature, sampling.top_k, sampling.top_p


@torch.no_grad()
def check_export(folder: Path, row: PackedRow, expected: Tensor, *, scalar: bool, dtype: str) -> float:
    """Loads `folder` and compares its output on `row` with the live model's; returns the largest difference.

    Raises: ArtifactError when it differs by more than the type's rounding.
    """
    loader = load_scalar_model if scalar else load_causal_lm
    model: PackedModel = loader(str(folder), dtype=dtype).eval()
    output = model(row.input_ids, row.position_ids, row.segments, row.positions).float()
    expected = expected.float().cpu()
    difference = float((output - expected).abs().max())
    if not difference <= TOLERANCE[dtype] * max(1.0, float(expected.abs().max())):
        raise ArtifactError(
            f"{folder} computes other numbers than the model that was saved: they differ by {difference:.3g}",
            expected=f"at most {TOLERANCE[dtype]:g} of the largest output",
            fix="report this: the folder was written but must not be used",
        )
    return difference
