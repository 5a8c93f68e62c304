"""Parameters that stand in a model under several names, as tied embeddings do.

`named_parameters` and a checkpoint's layout know such a parameter by its first name. What is written for others to
read has every name: a reader ties them again, and a strict load misses none.
"""

from __future__ import annotations

from torch import nn


def every_name(model: nn.Module) -> list[tuple[nn.Parameter, tuple[str, ...]]]:
    """Each parameter once, in the model's order, with all its names."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return [(parameter, tuple(each)) for parameter, each in names.items()]


def whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape without partitioning (ZeRO 3) and without packing (four bits)."""
    packed = getattr(parameter, "quant_state", None)
    return tuple(packed.shape if packed is not None else getattr(parameter, "ds_shape", parameter.shape))
