"""The data type in which a finished model is loaded to be evaluated."""

from __future__ import annotations

import torch

from rlhf.config.flag_values import Dtype
from rlhf.models.loading import DTYPES, model_config


def stored_dtype(path: str) -> str:
    """The type that the configuration of a folder or hub id states for its weights; float32 where it states none that
    this project loads.

    Raises: ModelError when the configuration cannot be read.
    """
    stated = model_config(path).dtype
    return next((name for name, kind in DTYPES.items() if kind == stated), "float32")


def evaluation_dtype(path: str, wanted: Dtype, device: torch.device) -> str:
    """The type to load a model in: "auto" is its stored type on a GPU, where float32 may not fit, and float32 on a CPU,
    which computes half precision slowly."""
    if wanted != "auto":
        return wanted
    return "float32" if device.type == "cpu" else stored_dtype(path)
