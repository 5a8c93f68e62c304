"""How buckets of weights reach the engine. The other ends are in `rlhf.rollout.server.readers`.

`shared_memory` is tested; `cuda_ipc` and `nccl` follow vLLM's own transfer engines and were not run: no GPU was
available. None stands in for another.
"""

from __future__ import annotations

import base64
import mmap
import os
import tempfile
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

SHARED_MEMORY = "/dev/shm"
SPLIT = 1024  # most tensors that one parameter becomes (experts)
ALIGNMENT = 64  # bytes; a tensor's view needs its element size


class Transport(Protocol):
    """One push: `describe` goes to the engine first, `opened` is called when it has opened its end; then `fill` writes
    a bucket, `sent` is called once the engine was told of it, and the engine's answer frees the buffer."""

    def describe(self) -> dict[str, Any]: ...
    def opened(self) -> None: ...
    def fill(self, tensors: dict[str, Tensor]) -> dict[str, Any]: ...
    def sent(self) -> None: ...
    def close(self) -> None: ...


def placed(tensors: dict[str, Tensor]) -> tuple[list[list[Any]], int]:
    """[name, dtype, shape, offset, bytes] of each tensor in a buffer, and the buffer's size in bytes."""
    entries: list[list[Any]] = []
    end = 0
    for name, tensor in tensors.items():
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        end = offset + tensor.numel() * tensor.element_size()
        entries.append([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), offset, end - offset])
    return entries, end


def bucket_room(size: int, members: int) -> int:
    """Bytes that hold the tensors of a group of `size` bytes in all; a checkpoint may split a member in many."""
    return size + ALIGNMENT * SPLIT * members


def _write(buffer: Tensor, tensors: dict[str, Tensor]) -> dict[str, Any]:
    entries, size = placed(tensors)
    for (_, _, _, offset, count), tensor in zip(entries, tensors.values(), strict=True):
        buffer[offset : offset + count].copy_(tensor.detach().contiguous().view(-1).view(torch.uint8))
    return {"tensors": entries, "size": size}


class SharedMemory:
    """A file in /dev/shm, unlinked as soon as the engine has opened it, so that none stays behind.

    Args:
        size: bytes of the largest bucket.
    """

    def __init__(self, size: int) -> None:
        file, self._path = tempfile.mkstemp(prefix="rlhf-weights-", dir=SHARED_MEMORY)  # 0600
        try:
            os.posix_fallocate(file, 0, size)  # a full /dev/shm is an error here, not a SIGBUS later
            self._map = mmap.mmap(file, size)
        except OSError:
            os.unlink(self._path)
            raise
        finally:
            os.close(file)
        self._size, self._linked = size, True
        self._buffer = torch.frombuffer(self._map, dtype=torch.uint8)

    def describe(self) -> dict[str, Any]:
        return {"kind": "shared_memory", "path": self._path, "size": self._size}

    def opened(self) -> None:
        if self._linked:
            os.unlink(self._path)
        self._linked = False

    def fill(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        return _write(self._buffer, tensors)

    def sent(self) -> None:
        pass

    def close(self) -> None:
        self.opened()
        del self._buffer
        self._map.close()


class CudaIpc:
    """A buffer on the GPU that trainer and engine share. Not run."""

    def __init__(self, size: int, device: torch.device) -> None:
        from torch.multiprocessing.reductions import reduce_tensor

        self._buffer = torch.empty(size, dtype=torch.uint8, device=device)
        _, arguments = reduce_tensor(self._buffer)
        names = (
            "tensor_cls",
            "tensor_size",
            "tensor_stride",
            "tensor_offset",
            "storage_cls",
            "dtype",
            "storage_device",
            "storage_handle",
            "storage_size_bytes",
            "storage_offset_bytes",
            "requires_grad",
            "ref_counter_handle",
            "ref_counter_offset",
            "event_handle",
            "event_sync_required",
        )
        known = dict(zip(names, arguments, strict=True))
        for own in ("tensor_cls", "storage_cls", "dtype", "storage_device"):  # the engine puts its own
            del known[own]
        self._handle = {name: _as_json(value) for name, value in known.items()}

    def describe(self) -> dict[str, Any]:
        return {"kind": "cuda_ipc", "handle": self._handle}

    def opened(self) -> None:
        pass

    def fill(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        bucket = _write(self._buffer, tensors)
        torch.cuda.synchronize()  # the engine reads in a stream of its own
        return bucket

    def sent(self) -> None:
        pass

    def close(self) -> None:
        del self._buffer
        torch.cuda.ipc_collect()


class Nccl:
    """Broadcasts to an engine on other GPUs. Not run.

    Args:
        broadcast: sends a tensor to all workers of the engine.
        address: what the workers need to join the group: host, port, world.
    """

    def __init__(
        self, size: int, device: torch.device, broadcast: Callable[[Tensor], None], address: dict[str, Any]
    ) -> None:
        self._buffer = torch.empty(size, dtype=torch.uint8, device=device)
        self._broadcast, self._address, self._used = broadcast, address, 0

    def describe(self) -> dict[str, Any]:
        return {"kind": "nccl", "size": self._buffer.numel(), **self._address}

    def opened(self) -> None:
        pass

    def fill(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        bucket = _write(self._buffer, tensors)
        self._used = bucket["size"]
        return bucket

    def sent(self) -> None:
        self._broadcast(self._buffer[: self._used])

    def close(self) -> None:
        del self._buffer


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return "base64:" + base64.b64encode(value).decode()
    return list(value) if isinstance(value, tuple) else value
