"""Proof of 4-bit weights: their rounding, and products against the weights they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlhf.doctor.checks import Check
from rlhf.doctor.comparison import compared
from rlhf.models.quantization import dequantized_weights, quantized_linear

FIX = "set model.quantize=none"
BLOCK = 64
# Half the widest gap between two values of nf4 (-1 and -0.6962, arXiv:2305.14314 appendix E) as a share of a block's
# largest weight, and the rounding of that largest weight to 8 bits.
ROUNDING = 0.152 + 0.02


def quantization_proof(device: torch.device, dtype: torch.dtype, *, width: int = 64, tokens: int = 8) -> Check:
    """Compares a 4-bit layer [width, width], forward and backward, with its dequantised weight in float32.

    The dequantised weight is held against the weight before rounding too: within half a step of nf4 in each block.
    """
    generator = torch.Generator().manual_seed(13)
    original = (torch.randn(width, width, generator=generator) * width**-0.5).to(dtype)
    layer = quantized_linear(original.clone(), device)
    weight = _dequantized(layer)
    hidden = torch.randn(tokens, width, generator=generator).to(device, dtype).requires_grad_()
    direction = torch.randn(tokens, width, generator=generator).to(device, dtype)
    with torch.enable_grad():
        output = layer(hidden)
        (gradient,) = torch.autograd.grad(output, hidden, direction)
    exact = weight.to(device)
    pairs = {
        "4-bit forward": (output.detach(), hidden.detach().float() @ exact.T),
        "4-bit backward": (gradient, direction.float() @ exact),
    }
    check = compared("4-bit weights", pairs, dtype, fix=FIX)
    off = _rounding(weight, original.float())
    said = f"{check.detail}; rounded by at most {off:.3f} of a block's largest weight, nf4 allows {ROUNDING:.3f}"
    agrees = check.state == "passed" and off <= ROUNDING
    return Check(check.name, "passed" if agrees else "failed", said, "" if agrees else FIX)


def _dequantized(layer: Any) -> Tensor:
    (weight,) = dequantized_weights(torch.nn.ModuleDict({"layer": layer})).values()
    return weight


def _rounding(rounded: Tensor, original: Tensor) -> float:
    """Largest rounding of a weight, as a share of the largest weight of its block."""
    blocks, exact = rounded.reshape(-1, BLOCK), original.reshape(-1, BLOCK)
    return float(((blocks - exact).abs() / exact.abs().amax(-1, keepdim=True)).max())
