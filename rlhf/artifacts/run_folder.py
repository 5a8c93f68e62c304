"""A run's folder: locked while in use, with a state file that says what became of the run.

runs/<name>/  config.yaml  manifest.json  metrics.jsonl  samples.jsonl  tensorboard/  state.json
              checkpoints/  model/  adapter/
once resumed  changes.jsonl (keys that were changed)
after a hang  hang/rank-0000.txt (the stack of each rank)
stage 3 also  tripwires.jsonl  abandoned.jsonl  control.json
dpo also      reference/logprobs.safetensors
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rlhf.artifacts.files import read_json, write_json, write_text
from rlhf.errors import ArtifactError, RunLockedError

Status = Literal["running", "preempted", "failed", "finished"]
POLL_INTERVAL_S = 0.2  # of `stop_run`


@dataclass(frozen=True, slots=True)
class RankFailure:
    """Which rank of a run failed first, in the step after `step`, and why.

    Later errors of other ranks, such as a broken connection, are its effects.
    """

    rank: int
    step: int
    reason: str


class FailureRecord:
    """One file in the run folder; the first rank to write it wins."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / ".failure.json"

    def write(self, failure: RankFailure) -> RankFailure:
        """The first failure: this one, or that of a quicker rank. Never raises: an error is already being handled."""
        beside = self._file.with_name(f"{self._file.name}.{failure.rank}")
        try:
            beside.write_text(json.dumps(asdict(failure), ensure_ascii=False), encoding="utf-8")
            os.link(beside, self._file)
        except OSError:  # written already, or the disk is full
            return self.read() or failure
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        return failure

    def read(self) -> RankFailure | None:
        try:
            return RankFailure(**read_json(self._file))
        except (OSError, ValueError, TypeError):
            return None

    def clear(self) -> None:
        """Forgets the failure of an earlier start."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


class RunFolder:
    """Paths of one run. Only rank 0 writes through it.

    abandoned: metrics of steps that a rollback took back. changes: keys whose value was changed when the run was
    resumed. stop_file: its presence asks a live run to stop after its step; `rlhf stop` creates it, the next start
    removes it. reference: what preference optimisation keeps of the model that it started from.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.adapter = self.path / "adapter"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples.jsonl"
        self.tripwires = self.path / "tripwires.jsonl"
        self.abandoned = self.path / "abandoned.jsonl"
        self.changes = self.path / "changes.jsonl"
        self.stop_file = self.path / "stop"
        self.reference = self.path / "reference"
        self.reference_logprobs = self.reference / "logprobs.safetensors"

    def prepare(self, *, resume: bool) -> None:
        """Creates the folder, or checks that what it holds may be continued or overwritten. Called under the lock.

        Raises: ArtifactError when it cannot be written, or holds a run and `resume` is off.
        """
        self._make()
        holds_run = self.model.exists() or any(self.checkpoints.glob("step-*"))
        if holds_run and not resume:
            raise ArtifactError(
                f"{self.path} already holds a run ({self.status() or 'of unknown state'})",
                where="run.dir",
                fix="add --resume auto to go on with it, or choose another run.dir",
            )
        if not holds_run:
            for path in (self.metrics, self.samples, self.tripwires, self.abandoned, self.changes):
                path.unlink(missing_ok=True)
        self.stop_file.unlink(missing_ok=True)
        FailureRecord(self.path).clear()
        shutil.rmtree(self.path / "hang", ignore_errors=True)

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            trial = self.path / ".writable"
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise ArtifactError(
                f"cannot write into {self.path}: {error.strerror}", where="run.dir", fix="choose another run.dir"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder's lock; the system releases it when this process ends, however it ends.

        Raises: RunLockedError, naming the holder, when another process has it.
        """
        self._make()
        path = self.path / ".lock"
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise RunLockedError(
                    f"{self.path} is in use by {file.read().strip() or 'another process'}",
                    where="run.dir",
                    fix="wait until that run has ended, or choose another run.dir",
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def holder(self) -> str:
        """The process that holds the folder's lock, in words; empty where none does."""
        path = self.path / ".lock"
        if not path.is_file():
            return ""
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().strip() or "another process"
        return ""

    def set_state(self, status: Status, *, stage: str, step: int, reason: str = "") -> None:
        """Writes state.json, which resuming, requeueing and chaining read."""
        state = {"status": status, "stage": stage, "step": step, "reason": reason}
        write_json(self.path / "state.json", state)

    def state(self) -> dict[str, Any]:
        """state.json, or an empty dictionary."""
        path = self.path / "state.json"
        return read_json(path) if path.is_file() else {}

    def status(self) -> str:
        return str(self.state().get("status", ""))

    def cut_logs_after(self, step: int) -> None:
        """Drops what was logged after `step`: a resumed run writes those lines again."""
        for path in (self.metrics, self.samples):
            if path.is_file():
                # Bytes: a crash may have cut the last line inside a character, and an answer may hold U+2028.
                lines = [line + b"\n" for line in path.read_bytes().split(b"\n") if _step_of(line) <= step]
                write_text(path, b"".join(lines).decode())


def _step_of(line: bytes) -> float:
    """The step of a logged line; infinity for one that was cut short by a crash."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):  # not JSON, or not UTF-8
        return float("inf")


def stop_run(path: str | Path, *, wait_s: float = 0.0) -> str:
    """Asks the run in a folder to save after its step and end; returns a line for the terminal.

    Raises: ArtifactError when no process holds the folder, or the run has not ended after `wait_s` seconds.
    """
    folder = RunFolder(path)
    holder = folder.holder()
    if not holder:
        status = folder.status()
        raise ArtifactError(
            f"no run is alive in {folder.path}" + (f" (its last state: {status})" if status else ""),
            fix="name the run.dir of a live run",
        )
    folder.stop_file.touch()
    if not wait_s:
        return f"asked {holder} to stop after its step"
    deadline = time.monotonic() + wait_s
    while folder.holder():
        if time.monotonic() > deadline:
            raise ArtifactError(
                f"{holder} has not ended after {wait_s:g} s; it stops when its step is done", fix="wait longer"
            )
        time.sleep(POLL_INTERVAL_S)
    state = folder.state()
    return f"the run is {state.get('status', 'gone')}: {state.get('reason', '')}"


def short_names(paths: Sequence[str]) -> list[str]:
    """The shortest unique end of each path: of runs/a/sft/model and runs/a/ppo/model, sft and ppo."""
    parts = [[part for part in Path(path).parts if part != "/"] for path in paths]
    parts = [each[:-1] if len(each) > 1 and each[-1] == "model" else each for each in parts]
    for size in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-size:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)
