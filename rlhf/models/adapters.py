"""LoRA through peft; targets that match no module are an error."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rlhf.config.sections import LoraSection
from rlhf.errors import ModelError
from rlhf.models.loading import PackedModel, PackedScalarModel
from rlhf.models.quantization import dequantized

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


def is_adapted(module: nn.Module) -> bool:
    """Whether peft has put a layer with adapters in this place."""
    return hasattr(module, "base_layer") and hasattr(module, "active_adapters")


@torch.no_grad()
def merged_weight(layer: Any) -> Tensor:
    """The weight of an adapted layer with its active adapters added, as peft merges them; a 4-bit one is dequantised.

    The frozen weight is only read: adding an update in place and taking it away again rounds it twice, and in half
    precision it drifts. The sum is computed in float32 and rounded once to the type that the layer computes in. An
    adapter that this layer does not have adds nothing.
    """
    weight = dequantized(layer.get_base_layer().weight)
    total = weight.to(torch.float32, copy=True)
    for adapter in layer.active_adapters:
        if adapter not in layer.lora_A and adapter not in layer.lora_embedding_A:
            continue
        variant = layer.lora_variant.get(adapter)
        if variant is None:
            total += layer.get_delta_weight(adapter).to(total)
        else:  # DoRA's rows are scaled too, from the weight itself
            total = variant.merge_safe(layer, adapter, total)
            layer._cache_pop(f"{adapter}-weight_norm")  # kept for an unmerge that does not come
    return total.to(weight.dtype)
