"""What every worker starts with: its arguments, models for an engine, and a place for results."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.config.sections import DeepSpeedSection, LanguageModelSection, LoraSection, OptimizerFields
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.deepspeed import InferenceModel, TrainedModel
from rlhf.engine.ranks import Ranks
from rlhf.train.models import build_causal_lm, build_scalar_model, make_trainable
from tests.distributed.problem import REALLY_PARTITIONED


def arguments() -> tuple[dict[str, Any], Path]:
    """The input file's content and the output folder; the launcher's --local_rank is left aside."""
    gc.collect()
    gc.freeze()  # ZeRO 3 collects garbage at each start: 0.6 s over all that was imported
    source, out = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]
    return torch.load(source, weights_only=False), Path(out)


@dataclass
class Results:
    """Numbers and weights by name, written by rank 0."""

    ranks: Ranks
    numbers: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        if self.ranks.is_main:
            torch.save(self.weights, folder / "weights.pt")
            (folder / "numbers.json").write_text(json.dumps(self.numbers), encoding="utf-8")


@cache
def tokenizer_of(path: str) -> ChatTokenizer:
    return load_tokenizer(path, "kullm")


def section_of(stage: int, *, offload: bool = False, precision: str = "float32") -> DeepSpeedSection:
    """precision: a type; with "unchecked" after it DeepSpeed does not look for gradients that are not finite."""
    overrides: dict[str, Any] = {"zero_optimization": REALLY_PARTITIONED} if stage == 3 else {}
    if precision == "bfloat16 unchecked":
        overrides["bf16"] = {"check_grad_overflow": False}
    return DeepSpeedSection.model_validate({"zero_stage": stage, "offload_optimizer": offload, "overrides": overrides})


def causal_lm(
    path: str,
    stage: int,
    optimizer: OptimizerFields,
    ranks: Ranks,
    *,
    lora: bool = False,
    ema_decay: float | None = None,
    offload: bool = False,
    precision: str = "float32",
) -> TrainedModel:
    dtype = precision.split(maxsplit=1)[0]
    section = section_of(stage, offload=offload, precision=precision)
    model = LanguageModelSection(
        path=path, dtype=dtype, lora=LoraSection(rank=2, targets=["query_key_value"]) if lora else None
    )
    wrapped = build_causal_lm(path, model, section, ranks, tokenizer_of(path), key="model.path")
    make_trainable(wrapped, model, lambda _: None)
    return TrainedModel(wrapped, optimizer, section, ranks, dtype=dtype, ema_decay=ema_decay)


def scalar_model(path: str, stage: int, optimizer: OptimizerFields, ranks: Ranks) -> TrainedModel:
    model, tokenizer = LanguageModelSection(path=path), tokenizer_of(path)
    wrapped = build_scalar_model(path, model, section_of(stage), ranks, tokenizer, key="model.path")
    return TrainedModel(wrapped, optimizer, section_of(stage), ranks, dtype="float32")


def frozen(path: str, stage: int, ranks: Ranks, *, scalar: bool) -> InferenceModel:
    model, tokenizer = LanguageModelSection(path=path), tokenizer_of(path)
    build = build_scalar_model if scalar else build_causal_lm
    wrapped = build(path, model, section_of(stage), ranks, tokenizer, key="model.path")
    return InferenceModel(wrapped, section_of(stage), ranks, dtype="float32")
