"""Host tensors on their way to a device: together, by one copy that the host does not wait for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def moved_together(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """CPU tensors on `device`, by name; on the CPU they are returned as they are.

    Elsewhere they are packed into one pinned buffer, whose copy the host does not wait for, and come back as views of
    one buffer on the device: none may be changed in place.
    """
    if device.type == "cpu":
        return dict(tensors)
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())  # each begins at a multiple of its size
    parts = [tensors[name].contiguous().reshape(-1).view(torch.uint8) for name in order]
    pinned = device.type != "meta"  # which has no memory to copy to
    buffer = torch.empty(sum(map(len, parts)), dtype=torch.uint8, pin_memory=pinned)
    torch.cat(parts, out=buffer)
    pieces = buffer.to(device, non_blocking=True).split([len(part) for part in parts])
    return {
        name: piece.view(tensors[name].dtype).view(tensors[name].shape)
        for name, piece in zip(order, pieces, strict=True)
    }


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`, as `moved_together` moves several."""
    return moved_together({"": tensor}, device)[""]


def page_locked(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor in memory from which a copy to `device` needs no waiting; for the CPU the tensor itself."""
    if device.type in ("cpu", "meta"):
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)
