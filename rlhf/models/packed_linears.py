"""Linear layers that read their weights in oneDNN's own layout, while answers are drawn on a CPU.

A decode step multiplies a few rows with every weight: packed once, it takes a fifth less time (docs/decisions/013).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rlhf.models.head import LanguageModelHead

LARGEST_BYTES = 256 << 20  # of weights: the packed copy is held beside them


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[None]:
    """Within, linear layers of `model` compute from packed copies of their weights, without gradients.

    Nothing changes where it does not apply: other devices and types, models of over 256 MiB, torch without oneDNN.
    Weights must not change within.
    """
    layers = _packable(model)
    try:
        for layer in layers:
            _read_packed(layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _packable(model: nn.Module) -> list[nn.Linear]:
    if not torch.backends.mkldnn.is_available():
        return []
    linear: list[nn.Linear] = [module for module in model.modules() if isinstance(module, nn.Linear)]
    layers = [
        layer
        for layer in linear
        if type(layer) in (nn.Linear, LanguageModelHead)  # no others: theirs is another product
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and "forward" not in vars(layer)
    ]
    return layers if sum(layer.weight.nbytes for layer in layers) <= LARGEST_BYTES else []


def _read_packed(layer: nn.Linear) -> None:
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None), layer.bias

    def forward(rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return product

    vars(layer)["forward"] = forward
