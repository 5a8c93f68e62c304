"""How a job's stage is started, watched and stopped: on this machine by `deepspeed`, or by Slurm.

A local job is a process group of its own and outlives the server. Its launcher holds a lock that the system releases
when it ends, however it ends, so a new server knows whether it still runs without relying on a process id.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from rlhf.config.shipped import ROOT, SCRIPTS
from rlhf.config.stages import STAGES
from rlhf.errors import TrainingError
from rlhf.web.server import listen

SLURM_TIMEOUT_S = 30
START_S = 10.0  # by then a started launcher has written its process id
# Writes its own id before it becomes the launcher, so that no moment is without one.
_BECOME = 'echo $$ > "$0" && exec "$@"'


class Launcher(Protocol):
    """Runs a stage in a job's own `folder`, which holds config.yaml; log.txt and the launcher's files go there."""

    def start(self, folder: Path, stage: str) -> None: ...
    def alive(self, folder: Path) -> bool: ...
    def stop(self, folder: Path) -> None: ...


class LocalLauncher:
    """Starts stages on this machine under the `deepspeed` launcher.

    Args:
        words: further arguments for the launcher, such as `--num_accelerators 1` or `--include localhost:0`.
    """

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._words = tuple(words)
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, folder: Path, stage: str) -> None:
        """Starts the stage, or resumes it from its last checkpoint."""
        with listen("127.0.0.1", 0) as free:
            port = str(free.getsockname()[1])
        command = [sys.executable, "-m", "deepspeed.launcher.runner", "--master_port", port, *self._words]
        script = str(SCRIPTS / STAGES[stage].script)
        command += [script, "--config", str(folder / "config.yaml"), "--resume", "auto"]
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / "pid").unlink(missing_ok=True)
            with (folder / "log.txt").open("ab") as log:
                child = subprocess.Popen(
                    ["/bin/sh", "-c", _BECOME, str(folder / "pid"), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),  # the lock lives as long as the launcher does
                    start_new_session=True,
                )
        finally:
            os.close(lock)
        self._children.append(child)

    def alive(self, folder: Path) -> bool:
        """Whether the launcher, or a rank it left behind, still runs."""
        self._reap()
        return is_held(folder / "lock") or is_held(folder / "run" / ".lock")

    def stop(self, folder: Path) -> None:
        """Ends launcher and ranks at once."""
        deadline = time.monotonic() + START_S
        while is_held(folder / "lock") and time.monotonic() < deadline:
            with suppress(OSError, ValueError):  # it is just starting, or has just ended
                os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
            time.sleep(0.02)
        self._reap()

    def _reap(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]  # none stays a zombie


class SlurmLauncher:
    """Starts stages by `sbatch scripts/slurm/train.sbatch STAGE_SCRIPT CONFIG`.

    Args:
        words: further arguments for sbatch, such as `--partition=a100`.
    """

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._words = tuple(words)
        self._script = SCRIPTS / "slurm" / "train.sbatch"

    def start(self, folder: Path, stage: str) -> None:
        """Submits the stage."""
        script = STAGES[stage].step
        where = [f"--output={folder / 'log.txt'}", "--open-mode=append", f"--chdir={ROOT}"]
        words = [*where, *self._words, str(self._script), script, str(folder / "config.yaml"), "--resume", "auto"]
        said = _slurm("sbatch", "--parsable", *words)
        match = re.match(r"\d+", said)
        if match is None:
            raise TrainingError(f"sbatch answered {said!r}", expected="the number of a job")
        (folder / "slurm").write_text(match[0])

    def alive(self, folder: Path) -> bool:
        """Whether the job waits or runs."""
        if not (number := folder / "slurm").is_file():
            return False
        said = _slurm("squeue", "--noheader", f"--jobs={number.read_text()}", "--states=all", "--format=%T")
        return said in _SLURM_ALIVE

    def stop(self, folder: Path) -> None:
        """Cancels the job."""
        if (number := folder / "slurm").is_file():
            _slurm("scancel", number.read_text())


_SLURM_ALIVE = frozenset({"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD"})


def _slurm(*command: str) -> str:
    """The output of a Slurm command; "" where squeue no longer knows the job."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SLURM_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrainingError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode and command[0] != "squeue":
        raise TrainingError(f"{command[0]} failed: {done.stderr.strip()}")
    if done.returncode and "Invalid job id" not in done.stderr:
        raise TrainingError(f"squeue failed: {done.stderr.strip()}")
    return done.stdout.strip()


def hold(path: Path) -> int | None:
    """Takes a lock that ends with this process, and returns its descriptor; None when another holds it."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(path: Path) -> bool:
    if not path.is_file():
        return False
    descriptor = hold(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False
