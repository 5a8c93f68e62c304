"""Memory of this process's device: what is free for it, and how torch's allocator is set."""

from __future__ import annotations

import os
from typing import Any

import torch

from rlhf.engine.container_memory import free_host_memory

ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
GROWING_SEGMENTS = "expandable_segments:True"


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still allocate on the device.

    On a GPU what the driver says is free, and what torch has reserved and does not use: its allocator keeps freed
    blocks, which the driver counts as taken. On a CPU what the machine and the limit of its container leave.
    """
    if device.type != "cuda":
        return free_host_memory()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def total_memory(device: torch.device) -> int:
    """Bytes of a whole GPU."""
    return int(torch.cuda.mem_get_info(device)[1])


def grow_segments() -> None:
    """Lets torch's allocator grow its segments, so that freed blocks of one size serve allocations of another.

    Without it a card that trains, samples and trains again is lost to fragments. A setting of the user's own is kept.
    Must be called before anything is allocated on a GPU.
    """
    if any(name in os.environ for name in ALLOCATOR_VARIABLES):
        return
    if not torch.cuda.is_available():
        return
    owner: Any = torch._C
    owner._accelerator_setAllocatorSettings(GROWING_SEGMENTS)
