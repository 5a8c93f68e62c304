"""Sends tensors from one rank to the workers of its rollout engine by NCCL, in a group apart from the trainer's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

GROUP_TIMEOUT_S = 600


class WeightBroadcast:
    """Number 0 of a group whose others are the engine's workers. Not run: no GPU was available.

    The store listens at once, and the group is made at the first `send`, when the workers were told to join.

    Args:
        workers: GPUs of the engine.
    """

    def __init__(self, device: torch.device, *, workers: int) -> None:
        from datetime import timedelta

        import torch.distributed

        dist: Any = torch.distributed
        self._world, self._device = workers + 1, device
        limit = timedelta(seconds=GROUP_TIMEOUT_S)
        self._store = dist.TCPStore("127.0.0.1", 0, self._world, is_master=True, timeout=limit, wait_for_workers=False)
        self._group: Any = None

    @property
    def address(self) -> dict[str, Any]:
        """What a worker needs to join."""
        return {"host": "127.0.0.1", "port": self._store.port, "world": self._world}

    def send(self, buffer: Tensor) -> None:
        """Broadcasts a tensor, of whose size the workers were told."""
        import torch.distributed

        dist: Any = torch.distributed
        if self._group is None:
            with torch.cuda.device(self._device):
                self._group = dist.ProcessGroupNCCL(self._store, 0, self._world, dist.ProcessGroupNCCL.Options())
        options = dist.BroadcastOptions()
        options.rootRank = 0
        self._group.broadcast([buffer], options).wait()
        torch.cuda.synchronize(self._device)
