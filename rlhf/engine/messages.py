"""Python objects between ranks, through the launcher's key-value store.

A collective has a time-out, and one of NCCL runs on the GPU. A message waits as long as rank 0 works alone, so that an
export of an hour, an endpoint that is slow or a report card cannot end the run; a rank that hangs is the watchdog's to
find.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.0005, 0.02
LEAVE_S = 5.0  # for ranks to read the last message after an error
LEFT = "left"


class RankLeftError(RuntimeError):
    """Another rank has left after an error, so the message that this rank waits for will never come."""


class Messages:
    """Every rank calls the same methods in the same order.

    Args:
        store: the store through which the process group was joined; rank 0 holds its server.
    """

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        self._server = store  # ends with its last reference
        # A connection of its own: NCCL's threads must not wait while this rank reads.
        self._store: Any = dist.PrefixStore("rlhf", store.clone())  # type: ignore[attr-defined]
        self._rank, self._world_size = rank, world_size
        self.number = 0

    def from_main(self, value: T) -> T:
        """The value of rank 0. Rank 0 does not wait for the others."""
        key = self._next()
        if self._rank == 0:
            self._store.set(key, pickle.dumps(value))
            return value
        self._wait([key])
        found = pickle.loads(self._store.get(key))
        self._forget([key], key, readers=self._world_size - 1)
        return found

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in rank order."""
        number = self._next()
        keys = [f"{number}/{rank}" for rank in range(self._world_size)]
        self._store.set(keys[self._rank], pickle.dumps(value))
        self._wait(keys)
        found = [pickle.loads(self._store.get(key)) for key in keys]
        self._forget(keys, number, readers=self._world_size)
        return found

    def leave(self, *, failed: bool) -> None:
        """The last call. Rank 0, which holds the store, waits until the others have read what it wrote."""
        if failed:
            self._store.set(LEFT, str(self._rank))
        if self._rank != 0:
            self._store.set(f"done/{self._rank}", b"")
            return
        others = [f"done/{rank}" for rank in range(1, self._world_size)]
        deadline = time.monotonic() + LEAVE_S
        while not self._store.check(others):
            if time.monotonic() > deadline and (failed or self._store.check([LEFT])):
                return
            time.sleep(LONGEST_PAUSE_S)

    def _next(self) -> str:
        self.number += 1
        return str(self.number)

    def _wait(self, keys: list[str]) -> None:
        """Waits without a limit. It polls, because a blocking wait holds back signals and Ctrl-C."""
        pause = FIRST_PAUSE_S
        while not self._store.check(keys):
            if self._store.check([LEFT]) and not self._store.check(keys):
                raise RankLeftError(f"rank {self._store.get(LEFT).decode()} has left after an error")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _forget(self, keys: Sequence[str], number: str, *, readers: int) -> None:
        """Deletes keys once every reader has read them."""
        count = f"{number}/read"
        if self._store.add(count, 1) == readers:
            for key in (*keys, count):
                self._store.delete_key(key)


def breaks_connection(error: BaseException) -> bool:
    """Whether the end of another rank can cause this error."""
    words = ("gloo", "NCCL", "onnection closed", "reset by peer", "onnection refused", "ProcessGroup", "TCPStore")
    if isinstance(error, (RankLeftError, dist.DistNetworkError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def arrivals(messages: Messages | None) -> dict[str, int]:
    """How many collectives of each group, and messages, this rank has begun; a rank behind the others is waited for."""
    if not dist.is_initialized():
        return {}
    groups: dict[Any, str] = dict(dist.distributed_c10d._world.pg_names)
    found = {name: group._get_sequence_number_for_group() for group, name in groups.items() if group.size() > 1}
    return found | ({} if messages is None else {"messages": messages.number})
