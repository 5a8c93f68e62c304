"""Stage scripts in processes of their own: forked from one that has imported everything (2 s a start, not 8), or
under the real `deepspeed` launcher where the launcher is what is tested. Faults are injected at a named call, so that
a kill lands where the test says and not where the machine's speed puts it."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from itertools import count
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.support.launcher import ENVIRONMENT, REPOSITORY, TAIL_CHARACTERS, free_port

SCRIPTS = {
    "sft": REPOSITORY / "scripts" / "step1_sft.py",
    "reward": REPOSITORY / "scripts" / "step2_reward.py",
    "ppo": REPOSITORY / "scripts" / "step3_ppo.py",
    "dpo": REPOSITORY / "scripts" / "dpo.py",
}
PRELOADED = "tests.integration.preloaded"


@dataclass(frozen=True)
class Fault:
    """A signal the process sends itself just before the `call`-th call of `target` ("module:name")."""

    target: str
    call: int
    signal: int = signal.SIGKILL

    def arm(self) -> None:
        module_name, path = self.target.split(":")
        *outer, name = path.split(".")
        holder: Any = reduce(getattr, outer, importlib.import_module(module_name))
        original, calls = getattr(holder, name), count(1)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == self.call:
                os.kill(os.getpid(), self.signal)
            return original(*args, **kwargs)

        setattr(holder, name, wrapped)


@dataclass(frozen=True)
class Outcome:
    """status: the exit status, minus the signal's number for a process that was killed; text: both its streams."""

    status: int
    text: str


class Started:
    """A script that runs in a forked process."""

    def __init__(self, process: Any, log: Path) -> None:
        self._process, self._log = process, log

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def wait(self, timeout: float = 180) -> Outcome:
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise AssertionError(f"no end after {timeout} s\n{self.text[-TAIL_CHARACTERS:]}")
        return Outcome(self._process.exitcode, self.text)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


class Starter:
    """Starts scripts; what they write goes into numbered files of `logs`."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._numbers = logs, count()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOADED])
        with patch.dict(os.environ, base_environment()):  # read when packages are imported, which the server does
            forkserver.ensure_running()
        if str(REPOSITORY) not in sys.path:  # children unpickle this module's functions by name
            sys.path.append(str(REPOSITORY))

    def start(
        self,
        stage: str,
        *words: str | Path,
        fault: Fault | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
    ) -> Started:
        """Starts a stage script with these words behind its name."""
        log = self._logs / f"{next(self._numbers):03d}-{stage}.txt"
        environment = {**base_environment(), **(env or {})}
        arguments = (SCRIPTS[stage], list(map(str, words)), log, environment, fault, cwd)
        process = self._context.Process(target=run_script, args=arguments)
        process.start()
        return Started(process, log)

    def run(self, stage: str, *words: str | Path, status: int = 0, **options: Any) -> str:
        """Runs a stage script to its end, which must have this status; what it wrote."""
        return finish(self.start(stage, *words, **options), status)

    def run_world(self, stage: str, *words: str | Path, ranks: int) -> str:
        """Runs a script on several ranks without a launcher; what rank 0 wrote."""
        texts = [finish(each, 0) for each in self.start_world(stage, *words, ranks=ranks)]
        return texts[0]

    def start_world(
        self, stage: str, *words: str | Path, ranks: int, faults: Mapping[int, Fault] | None = None
    ) -> list[Started]:
        """Starts a script on several ranks without a launcher; `faults` by rank."""
        shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        return [
            self.start(
                stage,
                *words,
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                fault=(faults or {}).get(rank),
            )
            for rank in range(ranks)
        ]


def base_environment() -> dict[str, str]:
    """This process's variables with what tests/support/launcher.py adds."""
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    for name, folder in (("PATH", Path(sys.executable).parent), ("PYTHONPATH", REPOSITORY)):
        environment[name] = os.pathsep.join([str(folder), *filter(None, [os.environ.get(name)])])
    return environment


def finish(started: Started, status: int) -> str:
    outcome = started.wait()
    assert outcome.status == status, outcome.text[-TAIL_CHARACTERS:]
    return outcome.text


def run_script(
    script: Path, words: list[str], log: Path, environment: Mapping[str, str], fault: Fault | None, cwd: Path
) -> None:
    """What the forked process does: becomes `python script words`."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(script), *words]
    if fault is not None:
        fault.arm()
    runpy.run_path(str(script), run_name="__main__")  # ends in sys.exit


# The real launcher


@dataclass(frozen=True)
class Launched:
    """A running `deepspeed` command: `process` is the launcher's top process."""

    process: subprocess.Popen
    log: Path

    def rank_pids(self) -> dict[int, int]:
        """Process ids of the ranks that live, by rank."""
        found = {}
        for pid in descendants(self.process.pid):
            for word in command_of(pid):
                if word.startswith("--local_rank="):
                    found[int(word.removeprefix("--local_rank="))] = pid
        return found

    def wait(self, timeout: float = 120) -> Outcome:
        self.process.wait(timeout)
        return Outcome(self.process.returncode, self.log.read_text(encoding="utf-8", errors="replace"))


@contextmanager
def launched(stage: str, *words: str | Path, ranks: int, log: Path) -> Iterator[Launched]:
    """`deepspeed scripts/... words`; whatever is left of it at the end of the block is killed."""
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--master_port", str(free_port())]
    command += ["--num_accelerators", str(ranks), str(SCRIPTS[stage]), *map(str, words)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=base_environment(), stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield Launched(process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def descendants(pid: int) -> list[int]:
    """Ids of all processes below `pid`."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def command_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], Any], what: str, *, timeout: float = 90) -> float:
    """Waits for `condition`; the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, f"not within {timeout} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - began
