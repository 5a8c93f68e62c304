"""Frozen weights in four bits (bitsandbytes nf4, double quantisation) under adapters in full precision."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rlhf.errors import require_packages

Quantize = Literal["none", "4bit"]


def require_quantizer(quantize: Quantize) -> None:
    """Raises ConfigError when 4-bit weights are asked for and their package is missing."""
    if quantize != "none":
        require_packages(
            "bitsandbytes",
            extra="gpu",
            needed_by=f"model.quantize={quantize}",
            where="model.quantize",
            otherwise="set model.quantize=none",
        )


def quantized_linear(weight: Tensor, device: torch.device) -> Any:
    """A 4-bit linear layer without bias from a weight [out, in], stored and computing as loaded models do."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    rows, columns = weight.shape
    stored: dict[str, Any] = {"compress_statistics": True, "quant_type": "nf4"}
    # On `meta` no random number is drawn for the weight that is put in.
    layer = Linear4bit(columns, rows, bias=False, compute_dtype=weight.dtype, device="meta", **stored)
    layer.weight = Params4bit(weight, requires_grad=False, **stored)
    layer.to(device)
    keep_differentiable(layer)
    return layer


def quantized_loading(quantize: Quantize, dtype: torch.dtype) -> dict[str, Any]:
    """Options of `from_pretrained`; products are computed in `dtype`."""
    if quantize == "none":
        return {}
    require_quantizer(quantize)
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": settings}


def keep_differentiable(model: Any) -> None:
    """Stops the CPU library from repacking weights for evaluation: the packed product rounds to bfloat16, has no
    gradient, and stays in place when training continues."""
    for _, module in _quantized_layers(model):
        module.support_avx512bf16_for_cpu = False


def dequantized(weight: Tensor) -> Tensor:
    """The weight that a layer computes with: a 4-bit one unpacked in the type of its products, another as it is."""
    packed = getattr(weight, "quant_state", None)
    if packed is None:
        return weight.detach()
    from bitsandbytes.functional import dequantize_4bit

    unpacked: Tensor = dequantize_4bit(weight.data, packed)
    return unpacked


def dequantized_weights(model: Any) -> dict[str, Tensor]:
    """The weights that 4-bit layers compute with, float32 on the CPU, by their name in the unquantised model."""
    layers = _quantized_layers(model)
    return {f"{name}.weight": dequantized(module.weight).float().cpu() for name, module in layers}


def _quantized_layers(model: Any) -> list[tuple[str, Any]]:
    """4-bit layers by name, as the model is named without adapters around them."""
    return [
        (name.removesuffix(".base_layer"), module)
        for name, module in model.named_modules()
        if type(module).__name__ == "Linear4bit" and not hasattr(module, "base_layer")
    ]
