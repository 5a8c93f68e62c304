"""The processes of one run: ranks, collectives, start and end."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rlhf.engine.stop_requests import StopRequest, signals_request_stop
from rlhf.errors import RlhfError, TrainingError

T = TypeVar("T")
WATCH_INTERVAL_S = 1.0
LOCK_NOTICE_S = 15.0
STOP_GRACE_S = 30.0
UNFINISHED = 75  # exit status of a run to be restarted with --resume auto (EX_TEMPFAIL)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all: `rank` of `world_size`, working on `device`; `stop` holds requests to stop."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    stop: StopRequest = field(default_factory=StopRequest, compare=False, repr=False)

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
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: T) -> T:
        if self.world_size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def on_main(self, action: Callable[[], T]) -> T:
        """Runs `action` on rank 0 and returns its result, or raises its error, on every rank."""
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
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def session(seed: int) -> Iterator[Ranks]:
    """Joins the process group, seeds every generator, and leaves the group at the end, also after an error."""
    _stand_alone_defaults()
    stop = StopRequest()
    watch_launcher(stop)
    build_cpu_op()
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    deepspeed.utils.logger.setLevel("WARNING")
    accelerator = get_accelerator()
    local_rank, world = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    if accelerator.device_name() == "cpu":
        torch.set_num_threads(_threads(world))
    else:
        accelerator.set_device(local_rank)
    join_group()
    seed_everything(seed + int(os.environ["RANK"]))
    device = torch.device("cpu" if accelerator.device_name() == "cpu" else accelerator.device_name(local_rank))
    ranks = Ranks(int(os.environ["RANK"]), local_rank, world, device, stop)
    try:
        ranks.barrier()
        _unlink_shared_buffer(ranks.rank)
        with signals_request_stop(stop):
            yield ranks
    finally:
        # Also after an error: a process that exits while it is in the group can abort.
        if dist.is_initialized():
            dist.destroy_process_group()


def join_group() -> None:
    """Joins the other ranks at the launcher's address.

    Raises: TrainingError when its port is taken, as by another run on this machine.
    """
    import deepspeed

    try:
        deepspeed.init_distributed(verbose=False)
    except dist.DistNetworkError as error:
        port = os.environ["MASTER_PORT"]
        raise TrainingError(
            f"the ranks cannot connect at port {port} of {os.environ['MASTER_ADDR']}: another run may be using it",
            fix=f"use a different port for each run on a machine: deepspeed --master_port {int(port) + 1} ...",
        ) from error


@contextmanager
def workers(seed: int) -> Iterator[Ranks]:
    """`session` under a launcher; otherwise a world of one rank without DeepSpeed, for work that trains nothing."""
    if "RANK" in os.environ:
        with session(seed) as ranks:
            yield ranks
        return
    seed_everything(seed)
    yield Ranks(0, 0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _unlink_shared_buffer(rank: int) -> None:
    """Unlinks this rank's shared-memory buffer once every rank has opened it.

    DeepSpeed's CPU op never removes it, so each run would leave 64 MiB per rank in memory. An unlinked buffer is freed
    with the last process that has it open, however that ends.
    """
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    Path(f"/dev/shm/deepspeed_allreduce_buffer_{os.getuid()}_{address}_{port}_{rank}").unlink(missing_ok=True)


def _stand_alone_defaults() -> None:
    """Environment of a world of one rank for a script that was started without a launcher."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _threads(world: int) -> int:
    """CPU threads of this rank: an even share of the cores, unless OMP_NUM_THREADS says otherwise."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world)
    wanted = os.environ.get("OMP_NUM_THREADS")
    return int(wanted) if wanted else max(1, len(os.sched_getaffinity(0)) // here)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def watch_launcher(stop: StopRequest) -> None:
    """Ends this process within seconds when the launcher above it dies.

    The `deepspeed` launcher does not end its ranks when it is killed; they would continue to train, holding memory
    and the lock of the run. Ranks that were asked to stop, as by a scheduler that signals every process, have half a
    minute to save.
    """
    watched = [(pid, start_time(pid)) for pid in _launchers_above()]
    if not watched:
        return

    def watch() -> None:
        while True:
            time.sleep(WATCH_INTERVAL_S)
            if any(start_time(pid) != started for pid, started in watched):
                time.sleep(STOP_GRACE_S if stop.signalled() else 0.0)
                sys.stderr.write("the launcher has ended, so this rank stops. Start again with --resume auto\n")
                sys.stderr.flush()
                os._exit(UNFINISHED)

    threading.Thread(target=watch, daemon=True, name="launcher-watch").start()


def _launchers_above() -> list[int]:
    """Process ids of the launchers this rank descends from, nearest first."""
    found, pid = [], os.getppid()
    while pid > 1:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        if not any(name in command for name in ("deepspeed", "torchrun", "torch.distributed")):
            break
        found.append(pid)
        pid = parent
    return found


def start_time(pid: int) -> str | None:
    """When the process started, in clock ticks; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def build_cpu_op() -> None:
    """Builds, or loads, DeepSpeed's CPU communication op under a lock that dies with its holder.

    torch locks its extension cache by the existence of a file: a process killed while it loads leaves the file, and
    every later start waits for ever without a message. This project therefore uses a cache of its own, and removes
    such a file while it holds the system's lock on that cache.
    """
    from deepspeed.accelerator import get_accelerator

    if get_accelerator().device_name() != "cpu":
        return
    shared = os.environ.get("TORCH_EXTENSIONS_DIR")
    # Two environments that shared a cache would take turns rebuilding the op.
    environment = hashlib.sha256(f"{sys.prefix} {torch.__version__}".encode()).hexdigest()[:12]
    cache = Path(shared) if shared else Path.home() / ".cache" / "rlhf" / "extensions" / environment
    os.environ["TORCH_EXTENSIONS_DIR"] = str(cache)
    # This environment's ninja, also when it is not activated: another ninja would rebuild the op at each start.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    cache.mkdir(parents=True, exist_ok=True)
    text = f"building DeepSpeed's CPU op in {cache}, or waiting for another process that does (20 to 60 s)\n"
    notice = threading.Timer(LOCK_NOTICE_S, sys.stderr.write, [text])
    notice.daemon = True
    notice.start()
    with (cache / "rlhf.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for leftover in [] if shared else cache.glob("*/lock"):
            leftover.unlink()
        from deepspeed.comm.torch import build_shm_op

        build_shm_op()  # joining the group loads it once more, from the cache
    notice.cancel()


def is_main_process() -> bool:
    """Whether this process reports to the user; true without a launcher too."""
    return os.environ.get("RANK", "0") == "0"
