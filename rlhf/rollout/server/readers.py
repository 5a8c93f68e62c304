"""How the engine's workers receive the trainer's weights: the other ends of `rlhf.rollout.vllm.transport`."""

from __future__ import annotations

import base64
import mmap
import os
from typing import Any, Protocol

import torch
from torch import Tensor


class WeightReader(Protocol):
    """One push. `read` returns tensors that stay valid when the trainer overwrites the buffer."""

    def read(self, bucket: dict[str, Any]) -> list[tuple[str, Tensor]]: ...
    def close(self) -> None: ...


def open_reader(transport: dict[str, Any], device: torch.device, worker: int) -> WeightReader:
    """The reader of the transport the trainer chose; `worker` is this worker's number in its engine."""
    kinds: dict[str, Any] = {"shared_memory": SharedMemoryReader, "cuda_ipc": CudaIpcReader, "nccl": NcclReader}
    return kinds[transport["kind"]](transport, device, worker)


def views(buffer: Tensor, bucket: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """The tensors of a bucket inside its buffer [bytes] uint8."""
    found = []
    for name, dtype, shape, offset, size in bucket["tensors"]:
        flat = buffer[offset : offset + size].view(getattr(torch, dtype))
        found.append((name, flat.view(shape)))
    return found


class SharedMemoryReader:
    """A file in /dev/shm that both processes map; opened when the push begins, so that the trainer can unlink it."""

    def __init__(self, transport: dict[str, Any], device: torch.device, worker: int) -> None:
        file = os.open(transport["path"], os.O_RDWR)
        try:
            self._map = mmap.mmap(file, transport["size"])
        finally:
            os.close(file)
        self._buffer = torch.frombuffer(self._map, dtype=torch.uint8)
        self._device = device

    def read(self, bucket: dict[str, Any]) -> list[tuple[str, Tensor]]:
        return [(name, tensor.to(self._device, copy=True)) for name, tensor in views(self._buffer, bucket)]

    def close(self) -> None:
        del self._buffer
        self._map.close()


class CudaIpcReader:
    """A buffer in the memory of the GPU that trainer and engine share. Not run: no GPU was available."""

    def __init__(self, transport: dict[str, Any], device: torch.device, worker: int) -> None:
        from torch.multiprocessing.reductions import rebuild_cuda_tensor

        handle = {
            name: base64.b64decode(value[7:]) if isinstance(value, str) and value.startswith("base64:") else value
            for name, value in transport["handle"].items()
        }
        own = {"tensor_cls": torch.Tensor, "storage_cls": torch.storage.TypedStorage, "dtype": torch.uint8}
        sizes = {"tensor_size": torch.Size(handle["tensor_size"]), "tensor_stride": tuple(handle["tensor_stride"])}
        # The device's number in this process, where CUDA_VISIBLE_DEVICES may count otherwise than in the trainer.
        self._buffer = rebuild_cuda_tensor(**{**handle, **own, **sizes, "storage_device": device.index})

    def read(self, bucket: dict[str, Any]) -> list[tuple[str, Tensor]]:
        copies = [(name, tensor.clone()) for name, tensor in views(self._buffer, bucket)]
        torch.cuda.synchronize()
        return copies

    def close(self) -> None:
        del self._buffer
        torch.cuda.ipc_collect()


class NcclReader:
    """Buckets broadcast by the trainer, which is number 0 of a group of its own. Not run: no GPU was available."""

    _group: Any = None  # of the whole process: it is made once

    def __init__(self, transport: dict[str, Any], device: torch.device, worker: int) -> None:
        import torch.distributed

        dist: Any = torch.distributed
        if NcclReader._group is None:
            store = dist.TCPStore(transport["host"], transport["port"], transport["world"], is_master=False)
            options = dist.ProcessGroupNCCL.Options()
            NcclReader._group = dist.ProcessGroupNCCL(store, worker + 1, transport["world"], options)
        self._buffer = torch.empty(transport["size"], dtype=torch.uint8, device=device)

    def read(self, bucket: dict[str, Any]) -> list[tuple[str, Tensor]]:
        import torch.distributed

        dist: Any = torch.distributed
        options = dist.BroadcastOptions()
        options.rootRank = 0
        NcclReader._group.broadcast([self._buffer[: bucket["size"]]], options).wait()
        copies = [(name, tensor.clone()) for name, tensor in views(self._buffer, bucket)]
        torch.cuda.synchronize()
        return copies

    def close(self) -> None:
        del self._buffer
