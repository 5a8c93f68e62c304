"""How ranks meet, and how long a collective may wait for one of them."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from rlhf.errors import TrainingError

LEAST_STEP_S = 30 * 60.0  # a short run.watchdog_minutes limits steps, not loading and export
MARGIN_S = 10 * 60.0
NO_LIMIT = timedelta(days=7)  # without a watchdog a person decides when it has waited long enough


def collective_timeout(step_limit_s: float | None) -> timedelta:
    """How long a collective may wait: longer than the watchdog gives a step, so that the watchdog names the rank first.

    NCCL's own time-out, of 10 minutes in DeepSpeed, aborts every process and names a collective.
    """
    return NO_LIMIT if step_limit_s is None else timedelta(seconds=max(step_limit_s, LEAST_STEP_S) + MARGIN_S)


def join_group(timeout: timedelta) -> None:
    """Joins the other ranks at the launcher's address; every group, those of DeepSpeed too, waits for `timeout`.

    Raises: TrainingError when its port is taken, as by another run on this machine.
    """
    import deepspeed

    _default_timeout(timeout)
    try:
        deepspeed.init_distributed(verbose=False, timeout=timeout)
    except dist.DistNetworkError as error:
        port = os.environ["MASTER_PORT"]
        raise TrainingError(
            f"the ranks cannot connect at port {port} of {os.environ['MASTER_ADDR']}: another run may be using it",
            fix=f"use a different port for each run on a machine: deepspeed --master_port {int(port) + 1} ...",
        ) from error


def _default_timeout(timeout: timedelta) -> None:
    """DeepSpeed names no time-out for its groups, and torch gives those its own default, not that of the world."""
    defaults: Any = dist.distributed_c10d
    defaults.default_pg_timeout = timeout
    defaults.default_pg_nccl_timeout = timeout


def store() -> Any:
    """The key-value store through which the group was joined."""
    return dist.distributed_c10d._get_default_store()


def stand_alone_defaults() -> None:
    """Environment of a world of one rank for a script that was started without a launcher."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def unlink_shared_buffer(rank: int) -> None:
    """Unlinks this rank's shared-memory buffer once every rank has opened it.

    DeepSpeed's CPU op never removes it, so each run would leave 64 MiB per rank in memory. An unlinked buffer is freed
    with the last process that has it open, however that ends.
    """
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    Path(f"/dev/shm/deepspeed_allreduce_buffer_{os.getuid()}_{address}_{port}_{rank}").unlink(missing_ok=True)
