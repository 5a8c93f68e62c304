"""The environment of a process that a rank starts and that is no rank itself."""

from __future__ import annotations

import os
from collections.abc import Mapping

# Of the launcher, of DeepSpeed and of this package's Python: a child of another environment must not see them.
DROPPED = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "LOCAL_SIZE",
    "CROSS_RANK",
    "CROSS_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "TORCH_EXTENSIONS_DIR",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
)


def child_environment(added: Mapping[str, str]) -> dict[str, str]:
    """This process's variables without those of its rank, and `added`."""
    kept = {name: value for name, value in os.environ.items() if name not in DROPPED}
    return {**kept, **added}


def visible_devices(numbers: list[int]) -> str:
    """CUDA_VISIBLE_DEVICES for a child that gets these devices, numbered as this process sees them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = [] if visible is None else [name.strip() for name in visible.split(",") if name.strip()]
    return ",".join(known[number] if number < len(known) else str(number) for number in numbers)
