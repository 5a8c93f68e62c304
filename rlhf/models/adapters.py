"""LoRA through peft; targets that match no module are an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rlhf.config.sections import LoraSection
from rlhf.errors import ModelError
from rlhf.models.loading import PackedModel, PackedScalarModel

ADAPTABLE = (nn.Linear, nn.Embedding, Conv1D)


def add_lora(model: PackedModel, lora: LoraSection) -> None:
    """Wraps `model.model` with adapters in place; the head of a scalar model is trained in full.

    Raises: ModelError when a target names no linear module (a scope that matches nothing trains nothing).
    """
    from peft import get_peft_model

    model.model = get_peft_model(model.model, lora_settings(model, lora))


def lora_settings(model: PackedModel, lora: LoraSection) -> Any:
    """peft's settings of a new adapter; a scalar model's head is trained in full. Raises ModelError as `add_lora`."""
    from peft import LoraConfig

    check_targets(model.model, lora.targets)
    scalar = isinstance(model, PackedScalarModel)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="SEQ_CLS" if scalar else "CAUSAL_LM",
        modules_to_save=["score"] if scalar else None,
        use_dora=lora.variant == "dora",
        use_rslora=lora.variant == "rslora",
    )


def check_targets(model: nn.Module, targets: list[str] | str) -> None:
    """Every named target must match at least one module, as peft matches (whole name or dotted ending)."""
    if isinstance(targets, str):
        return
    names = [name for name, module in model.named_modules() if isinstance(module, ADAPTABLE)]
    absent = [target for target in targets if not any(name == target or name.endswith(f".{target}") for name in names)]
    if absent:
        linear = Counter(
            name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)
        )
        choices = ", ".join(f"{name} ({count})" for name, count in linear.most_common())
        raise ModelError(
            f"LoRA targets match no module: {', '.join(absent)}",
            where="model.lora.targets",
            expected=f"names of linear modules of this model: {choices}",
            fix="name some of those, or all-linear",
        )


@torch.no_grad()
def plain_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights of a Hugging Face model by name, each with its active adapter added to it in a copy.

    The frozen weights are only read: adding an update in place and taking it away again rounds them twice, and in half
    precision they drift. The sum is computed in float32 and rounded once to the weight's type.
    """
    if not hasattr(model, "peft_config"):
        yield from model.named_parameters()
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = model.get_base_model()
    adapted = {name: module for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)}
    for name, parameter in base.named_parameters():
        layer = adapted.get(name.removesuffix(".base_layer.weight")) if name.endswith(".base_layer.weight") else None
        if "lora_" not in name:
            yield name.replace(".base_layer", ""), parameter if layer is None else _sum(layer)


def _sum(layer: Any) -> Tensor:
    """The weight of an adapted layer with its active adapters added, as peft merges them, but into a float32 copy."""
    weight = layer.get_base_layer().weight
    kept = weight.data
    weight.data = kept.to(torch.float32, copy=True)
    try:
        layer.merge()
        return weight.data.to(kept.dtype)
    finally:
        weight.data = kept
        layer.merged_adapters.clear()
        for adapter in layer.active_adapters:
            layer._caches.pop(f"{adapter}-weight_norm", None)  # what DoRA keeps to take its update away again
