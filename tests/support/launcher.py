"""Starts scripts under the real `deepspeed` launcher, as a user does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

REPOSITORY = Path(__file__).parents[2]
TAIL_CHARACTERS = 6000
# Nothing here compiles, and DeepSpeed loads the whole compiler at each start unless told so: 2 s a rank.
ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "TORCHDYNAMO_DISABLE": "1"}
T = TypeVar("T")


def run_deepspeed(
    script: str | Path,
    *args: str | Path,
    ranks: int = 1,
    cwd: str | Path = REPOSITORY,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs `script` on `ranks` CPU ranks; the result's stdout holds what launcher and ranks wrote to both streams.

    Args:
        env: variables laid over this process's.
        timeout: seconds, after which launcher and ranks are killed and the call fails.
        check: whether an exit status other than 0 fails the call.

    Raises: AssertionError with the tail of the output.
    """
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner"]
    options = ["--num_accelerators", str(ranks), "--master_port", str(free_port())]
    return _run([*launcher, *options, str(script), *map(str, args)], cwd, env, timeout, check)


def run_alone(
    script: str | Path,
    *args: str | Path,
    cwd: str | Path = REPOSITORY,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs `script` by Python alone, a world of one; otherwise as `run_deepspeed`, and seconds quicker."""
    return _run([sys.executable, str(script), *map(str, args)], cwd, env, timeout, check)


def _run(
    command: list[str], cwd: str | Path, env: Mapping[str, str] | None, timeout: float, check: bool
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ENVIRONMENT}
    # The `ninja` beside this Python goes first: another version's would build DeepSpeed's CPU op again, for a minute.
    for name, folder in (("PATH", Path(sys.executable).parent), ("PYTHONPATH", REPOSITORY)):
        environment[name] = os.pathsep.join([str(folder), *filter(None, [os.environ.get(name)])])
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**environment, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # so that launcher and ranks can be ended together
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"no end after {timeout} s: {' '.join(command)}\n{output[-TAIL_CHARACTERS:]}") from None
    except BaseException:  # a time limit of the test, or Ctrl-C
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if check and process.returncode:
        tail = output[-TAIL_CHARACTERS:]
        raise AssertionError(f"exit status {process.returncode}: {' '.join(command)}\n{tail}")
    return subprocess.CompletedProcess(command, process.returncode, output, "")


def together(*calls: Callable[[], T]) -> list[T]:
    """Results of calls made at the same time: a start keeps one core busy and leaves the other to somebody else."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        return [future.result() for future in futures]


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
