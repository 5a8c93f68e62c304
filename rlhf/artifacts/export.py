"""A trained model as a Hugging Face folder, verified by loading it again.

Weights are gathered, put strictly into a fresh model, saved, loaded from disk and compared with what the live
model computes. An export that differs is an error, not a file.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig, PreTrainedModel

from rlhf.artifacts.files import flush_tree, read_json, sha256_of, write_json
from rlhf.config.sections import SamplingSection
from rlhf.data.packing import PackedRow
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.memory import free_memory
from rlhf.errors import ArtifactError
from rlhf.models.loading import (
    DTYPES,
    PackedModel,
    PackedScalarModel,
    load_causal_lm,
    load_scalar_model,
    unwrap_peft,
)
from rlhf.models.quantization import Quantize, dequantized_weights
from rlhf.models.scalar_head import scaled_head, shift_scores

ROOM_TO_RELOAD = 1.2  # of the weights' size, for a pass over the probe
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}  # of the largest output


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """base.json of an adapter: the model it was trained on.

    sha256: of the base; None for a hub id. quantize: how training stored its weights. num_tokens: rows of the adapted
    model's embeddings. score_offset: reward units added to every score, after the adapter.
    """

    path: str
    sha256: str | None
    quantize: Quantize
    num_tokens: int
    score_offset: float

    @property
    def identity(self) -> str:
        """What identifies the base: its hash, or its name on the hub."""
        return self.sha256 or self.path


def save_model(
    live: PackedModel,
    weights: dict[str, Tensor],
    folder: Path,
    tokenizer: ChatTokenizer,
    *,
    dtype: str,
    base_path: str,
    sampling: SamplingSection | None = None,
    score_scale: float = 1.0,
    score_offset: float = 0.0,
) -> None:
    """Writes `folder` (and, for LoRA, `folder/../adapter`) on rank 0.

    Args:
        live: the wrapped model whose configuration is saved; its weights may be partitioned.
        weights: the whole weights, as `TrainedModel.state_dict` gives them.
        base_path: the model the adapters were trained on.
        sampling: decoding settings for generation_config.json.
        score_scale: multiplies every score of a one-number model, through the weight of its head.
        score_offset: added to every score after that (see `shift_scores`).
    """
    if score_scale != 1.0:
        weights = scaled_head(weights, score_scale)
        score_offset += (score_scale - 1.0) * float(getattr(live.model.config, "score_shift", 0.0))
    writing = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(writing, ignore_errors=True)
    if hasattr(live.model, "peft_config"):
        model: Any = _merged(live, weights, folder.with_name("adapter"), base_path, dtype, score_offset)
    else:
        auto = AutoModelForSequenceClassification if isinstance(live, PackedScalarModel) else AutoModelForCausalLM
        model = auto.from_config(live.model.config)  # empty, outside any partitioning
        model.load_state_dict(weights, strict=True, assign=True)
    if score_offset:
        shift_scores(model, score_offset)
    set_generation(model, tokenizer, sampling)
    model.to(DTYPES[dtype]).save_pretrained(writing)
    tokenizer.save(writing)
    flush_tree(writing)
    if folder.exists():
        shutil.rmtree(folder)
    writing.rename(folder)


def _merged(
    live: PackedModel, weights: dict[str, Tensor], adapter: Path, base_path: str, dtype: str, score_offset: float
) -> PreTrainedModel:
    """Saves the adapter, then merges it into a fresh copy of its base."""
    _save_adapter(live, weights, adapter)
    rounded = dequantized_weights(unwrap_peft(live.model))
    entry = AdapterBase(
        path=base_path,
        sha256=sha256_of(Path(base_path)) if Path(base_path).is_dir() else None,
        quantize="4bit" if rounded else "none",
        num_tokens=live.model.get_input_embeddings().num_embeddings,
        score_offset=score_offset,
    )
    write_json(adapter / "base.json", asdict(entry))
    base = load_base(adapter, scalar=isinstance(live, PackedScalarModel), dtype=dtype, rounded=rounded)
    merged = merge_adapter(with_adapter(base, adapter), dtype=dtype)
    merged.config.__dict__.update(score_shift=float(getattr(live.model.config, "score_shift", 0.0)))
    return merged


def _save_adapter(live: PackedModel, weights: dict[str, Tensor], adapter: Path) -> None:
    """The active adapter alone, also where the model holds several: peft puts all but `default` a folder deeper."""
    name = live.model.active_adapter
    shutil.rmtree(adapter, ignore_errors=True)
    live.model.save_pretrained(adapter, state_dict=weights, selected_adapters=[name])
    deeper = adapter / name
    if deeper.is_dir():
        for file in list(deeper.iterdir()):
            file.rename(adapter / file.name)
        deeper.rmdir()
    check_adapter(adapter)


def adapter_base(adapter: Path) -> AdapterBase:
    """What base.json of an adapter's folder holds.

    Raises: ArtifactError when the file or one of its keys is absent.
    """
    file = adapter / "base.json"
    entry: dict[str, Any] = read_json(file) if file.is_file() else {}
    names = [field.name for field in fields(AdapterBase)]
    missing = [name for name in names if name not in entry]
    if missing:
        raise ArtifactError(f"{file} lacks {', '.join(missing)}", fix="train the adapter again with this version")
    return AdapterBase(**{name: entry[name] for name in names})


def load_packed(
    path: str, *, scalar: bool, dtype: str = "float32", quantize: Quantize = "none", new_head: bool = False
) -> PackedModel:
    """A one-number model where `scalar`, whose head may be new, else a causal LM."""
    if scalar:
        return load_scalar_model(path, dtype=dtype, quantize=quantize, new_head=new_head)
    return load_causal_lm(path, dtype=dtype, quantize=quantize)


def load_base(adapter: Path, *, scalar: bool, dtype: str, rounded: Mapping[str, Tensor] | None = None) -> PackedModel:
    """The model that `adapter` was trained on, as its base.json describes it, in weights of `dtype`.

    Where training held it in four bits, its weights are the dequantized ones: `rounded` by name, or, without those,
    quantized again from the base.
    """
    entry = adapter_base(adapter)
    base = load_packed(entry.path, scalar=scalar, dtype=dtype, new_head=True)
    if base.model.get_input_embeddings().num_embeddings != entry.num_tokens:
        base.model.resize_token_embeddings(entry.num_tokens, mean_resizing=False)
    if entry.quantize != "none":
        if not rounded:
            held = load_packed(entry.path, scalar=scalar, dtype=dtype, quantize=entry.quantize, new_head=True)
            rounded = dequantized_weights(held.model)
        base.model.load_state_dict(rounded, strict=False)
    return base


def with_adapter(base: PackedModel, adapter: Path) -> PackedModel:
    """`base` with the adapter's layers beside its own, nothing merged."""
    from peft import PeftModel

    base.model = PeftModel.from_pretrained(base.model, str(adapter))
    return base


def merge_adapter(adapted: PackedModel, *, dtype: str) -> PreTrainedModel:
    """The adapter of `adapted` added to its base's weights, which are changed in place.

    Raises: ArtifactError when no weight of an adapted module, rounded to `dtype`, differs from the base's.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    model: Any = adapted.model
    layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    num_changed = 0
    for layer in layers:  # one at a time: a copy of all of them would be a second model in memory
        before = layer.get_base_layer().weight.detach().to(DTYPES[dtype], copy=True)
        layer.merge()
        num_changed += not torch.equal(layer.get_base_layer().weight.detach().to(DTYPES[dtype]), before)
    if not num_changed:
        raise ArtifactError(
            f"merging changed none of {len(layers)} adapted modules: the merged model would be its base",
            expected=f"at least one weight that differs from the base's in {dtype}",
            fix="check that the run took optimizer steps, raise the learning rate, or export in float32",
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All adapters are already merged")
        return model.merge_and_unload()


def check_adapter(adapter: Path) -> None:
    """Raises ArtifactError for an adapter without tensors, or whose every update is zero."""
    file = adapter / "adapter_model.safetensors"
    if not file.is_file():
        raise ArtifactError(f"{adapter} holds no adapter_model.safetensors", fix="train the adapter again")
    with safe_open(str(file), framework="pt") as tensors:
        names = list(tensors.keys())
        changed = [name for name in names if "lora_B" in name and bool(tensors.get_tensor(name).any())]
    if not names or not changed:
        raise ArtifactError(
            f"{file} holds {len(names)} tensors, {len(changed)} of them a non-zero update",
            expected="at least one trained low-rank update: an empty adapter is the base model",
            fix="check model.lora.targets and that the run took optimizer steps",
        )


def set_generation(model: Any, tokenizer: ChatTokenizer, sampling: SamplingSection | None) -> None:
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


CPU = torch.device("cpu")


def reload_device(folder: Path, device: torch.device) -> torch.device:
    """Where to compute with a folder that was written on `device`: there, with the same kernels, if its weights fit
    beside the live model; else on the CPU, whose rounding in half precision is another."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return device if device.type == "cpu" or size * ROOM_TO_RELOAD <= free_memory(device) else CPU


@torch.no_grad()
def check_export(
    folder: Path, row: PackedRow, expected: Tensor, *, scalar: bool, dtype: str, device: torch.device = CPU
) -> float:
    """Loads `folder` onto the live model's device, if it fits, and compares its output on `row` with that model's;
    returns the largest difference.

    Raises: ArtifactError when it differs by more than the type's rounding.
    """
    device = reload_device(folder, device)
    model, row = load_packed(str(folder), scalar=scalar, dtype=dtype).to(device).eval(), row.to(device)
    output = model(row.input_ids, row.position_ids, row.segments, row.positions).float().cpu()
    expected = expected.float().cpu()
    difference = float((output - expected).abs().max())
    if not difference <= TOLERANCE[dtype] * max(1.0, float(expected.abs().max())):
        raise ArtifactError(
            f"{folder} computes other numbers than the model that was saved: they differ by {difference:.3g}",
            expected=f"at most {TOLERANCE[dtype]:g} of the largest output",
            fix="report this: the folder was written but must not be used",
        )
    return difference
