"""The processes of one run: ranks, collectives, start and end."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rlhf.engine.accelerator import require_gpu_used
from rlhf.engine.launcher_watch import watch_launcher
from rlhf.engine.memory import grow_segments
from rlhf.engine.messages import Messages
from rlhf.engine.op_builds import guard_op_builds
from rlhf.engine.process_group import (
    LEAST_STEP_S,
    collective_timeout,
    join_group,
    stand_alone_defaults,
    store,
    unlink_shared_buffer,
)
from rlhf.engine.stop_requests import StopRequest, signals_request_stop
from rlhf.errors import RlhfError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all: `rank` of `world_size`, working on `device`.

    `stop` holds requests to stop; `messages` carries Python objects between ranks, where there is more than one.
    """

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    stop: StopRequest = field(default_factory=StopRequest, compare=False, repr=False)
    messages: Messages | None = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def global_sum(self, *values: Tensor | float) -> list[float]:
        """Sums of scalars over all ranks, in float64; requests to stop are summed with them.

        The host waits for the device once, however many scalars there are.
        """
        summed = (*values, float(self.stop.requested()))
        total = torch.stack([self._scalar(value) for value in summed])
        if self.world_size > 1:
            dist.all_reduce(total)
        *sums, requests = (float(value) for value in total.tolist())
        self.stop.agreed = self.stop.agreed or requests > 0
        return sums

    def _scalar(self, value: Tensor | float) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(self.device, torch.float64)
        return torch.full((), value, dtype=torch.float64, device=self.device)  # a kernel; a copy would be waited for

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in rank order, on every rank (pickled: for small Python objects)."""
        if self.world_size == 1:
            return [value]
        return self._messages.gather(value)

    def from_main(self, value: T) -> T:
        """The value of rank 0 on every rank."""
        if self.world_size == 1:
            return value
        return self._messages.from_main(value)

    def on_main(self, action: Callable[[], T]) -> T:
        """Runs `action` on rank 0 and returns its result, or raises its error, on every rank.

        The others wait as long as it takes: no time-out of a collective runs meanwhile.
        """
        outcome: tuple[Any, RlhfError | None] = (None, None)
        if self.is_main:
            try:
                outcome = (action(), None)
            except RlhfError as error:
                outcome = (None, error)
        result, failure = self.from_main(outcome)
        if failure is not None:
            raise failure
        return result

    def barrier(self) -> None:
        """Waits for every rank, as long as it takes. Work queued on a GPU may still run."""
        self.gather(None)

    @property
    def _messages(self) -> Messages:
        assert self.messages is not None, "a world of more than one rank has a session"
        return self.messages


@contextmanager
def session(seed: int, *, step_limit_s: float | None = LEAST_STEP_S) -> Iterator[Ranks]:
    """Joins the process group, seeds every generator, and leaves the group at the end, also after an error.

    Args:
        step_limit_s: how long the watchdog gives a step; collectives wait longer.

    Raises: TrainingError where the ranks cannot meet, or would leave the machine's GPU unused.
    """
    stand_alone_defaults()
    stop = StopRequest()
    watch_launcher(stop)
    device = _prepared_device()
    join_group(collective_timeout(step_limit_s))
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    seed_everything(seed + rank)
    messages = Messages(store(), rank, world) if world > 1 else None
    ranks = Ranks(rank, int(os.environ["LOCAL_RANK"]), world, device, stop, messages)
    try:
        ranks.barrier()
        unlink_shared_buffer(rank)
        with signals_request_stop(stop):
            yield ranks
    except BaseException:
        _leave(messages, failed=True)
        raise
    else:
        _leave(messages, failed=False)


def _prepared_device() -> torch.device:
    """Chooses this rank's device, and guards the builds of DeepSpeed's ops."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    deepspeed.utils.logger.setLevel("WARNING")
    accelerator, local_rank = get_accelerator(), int(os.environ["LOCAL_RANK"])
    name = accelerator.device_name()
    require_gpu_used(name)
    guard_op_builds()
    if name == "cpu":
        torch.set_num_threads(_threads(int(os.environ["WORLD_SIZE"])))
        return torch.device("cpu")
    grow_segments()
    accelerator.set_device(local_rank)
    return torch.device(accelerator.device_name(local_rank))


def _leave(messages: Messages | None, *, failed: bool) -> None:
    """Leaves the group, also after an error: a process that exits while it is in the group can abort.

    The group goes first: a rank that waits in a collective then learns of it, and can read the last message.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
    if messages is not None:
        with suppress(dist.DistNetworkError):  # rank 0, which holds the store, is gone
            messages.leave(failed=failed)


@contextmanager
def workers(seed: int) -> Iterator[Ranks]:
    """`session` under a launcher; otherwise a world of one rank without DeepSpeed, for work that trains nothing."""
    if "RANK" in os.environ:
        with session(seed) as ranks:
            yield ranks
        return
    seed_everything(seed)
    grow_segments()
    yield Ranks(0, 0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _threads(world: int) -> int:
    """CPU threads of this rank: an even share of the cores, unless OMP_NUM_THREADS says otherwise."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world)
    wanted = os.environ.get("OMP_NUM_THREADS")
    return int(wanted) if wanted else max(1, len(os.sched_getaffinity(0)) // here)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def is_main_process() -> bool:
    """Whether this process reports to the user; true without a launcher too."""
    return os.environ.get("RANK", "0") == "0"
