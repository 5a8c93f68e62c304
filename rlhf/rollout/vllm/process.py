"""The engine's process: started, greeted, watched and ended by one rank."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from rlhf.engine.child_environment import child_environment
from rlhf.errors import ConfigError, EngineError
from rlhf.rollout.server.wire import PROTOCOL, Channel, ClosedError, Frame, WireError

TAIL_LINES = 15
LAST_WORDS_S = 5.0  # an engine that closed its connection has this long to end by itself
SERVER = Path(__file__).parents[1] / "server" / "main.py"


class EngineProcess:
    """A running engine and the connection to it.

    Args:
        command: the program; `--connect` and `--parent` are appended.
        log: file that gets what the engine writes.
        variables: added to the environment.
        timeout_s: longest time for one request; `start_timeout_s`: until it says hello, and until it has started.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        variables: Mapping[str, str] = {},
        timeout_s: float,
        start_timeout_s: float,
    ) -> None:
        self.log, self.timeout_s, self.start_timeout_s = log, timeout_s, start_timeout_s
        self._closed = False
        log.parent.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.mkdtemp(prefix="rlhf-engine-")  # 0700: only this user can connect
        path = os.path.join(self._folder, "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, log.open("ab") as output:
            listener.bind(path)
            listener.listen(1)
            self._process = _started([*command, "--connect", path, "--parent", str(os.getpid())], output, variables)
            try:
                self._channel = Channel(self._accepted(listener))
            except BaseException:
                self.close()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def greet(self, check: Callable[[Mapping[str, str]], None], settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Exchanges versions, which `check` may refuse, and starts the engine; returns what it says of itself.

        Raises: ConfigError for another protocol; EngineError when the engine ends or hangs.
        """
        hello = self._receive("hello", self.start_timeout_s)
        theirs = hello.fields["protocol"]
        if theirs != PROTOCOL:
            older = "the engine's" if theirs < PROTOCOL else "the trainer's"
            raise ConfigError(
                f"the engine speaks protocol {theirs}, the trainer {PROTOCOL}",
                where="rollout.vllm.python",
                fix=f"update {older} copy of this package: both sides must be one version",
            )
        check(hello.fields["versions"])
        self._send("start", b"", settings)
        return self._receive("started", self.start_timeout_s).fields

    def request(self, kind: str, answer: str = "done", payload: bytes = b"", **fields: Any) -> Frame:
        """Sends a request and waits for its answer. Raises: EngineError."""
        self.send(kind, payload, **fields)
        return self.receive(answer)

    def send(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Sends a request whose answer is received later. Raises: EngineError."""
        self._send(kind, payload, fields)

    def receive(self, answer: str) -> Frame:
        """The answer to the oldest request. Raises: EngineError."""
        return self._receive(answer, self.timeout_s)

    def close(self) -> None:
        """Ends the engine and all it started."""
        if self._closed:
            return
        self._closed = True
        if hasattr(self, "_channel"):
            with suppress(ClosedError):
                self._channel.send("stop")
            self._channel.close()
        self._ended(LAST_WORDS_S if hasattr(self, "_channel") else 0.0)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _send(self, kind: str, payload: bytes, fields: Mapping[str, Any]) -> None:
        try:
            self._channel.send(kind, payload, **fields)
        except ClosedError as error:
            raise self._gone() from error

    def _receive(self, answer: str, timeout_s: float) -> Frame:
        deadline = time.monotonic() + timeout_s

        def tick() -> None:
            if self._process.poll() is not None:
                raise self._gone()
            if time.monotonic() > deadline:
                raise self._hung(answer, timeout_s)

        try:
            message = self._channel.receive(tick)
        except (ClosedError, WireError) as error:
            raise self._gone() from error
        if message.kind == "failed":
            raise self._error(f"failed: {message.fields['error'].strip().splitlines()[-1]}")
        assert message.kind == answer, f"the engine sent {message.kind}, expected {answer}"
        return message

    def _accepted(self, listener: socket.socket) -> socket.socket:
        deadline = time.monotonic() + self.start_timeout_s
        listener.settimeout(0.2)
        while True:
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self._process.poll() is not None:
                    raise self._gone() from None
                if time.monotonic() > deadline:
                    raise self._hung("hello", self.start_timeout_s) from None

    def _ended(self, within_s: float) -> int | None:
        """The exit status, if the process ends within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(within_s)
        return None

    def _gone(self) -> EngineError:
        status = self._ended(LAST_WORDS_S)
        if status is None:
            return self._error("closed its connection and still runs")
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return self._error(f"ended with {how}")

    def _hung(self, answer: str, timeout_s: float) -> EngineError:
        key = "start_timeout_s" if answer in ("hello", "started") else "timeout_s"
        return self._error(f"did not answer ({answer}) within {timeout_s:g} s", f"rollout.vllm.{key}", "raise it, or ")

    def _error(self, problem: str, where: str = "rollout.backend", fix: str = "") -> EngineError:
        return EngineError(
            f"the rollout engine (process {self.pid}) {problem}; its log ends with\n{self.log_tail()}",
            where=where,
            fix=f"{fix}read {self.log}",
        )

    def log_tail(self) -> str:
        """The last lines of the engine's log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.is_file() else []
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:]) or "    (nothing)"


def _started(command: list[str], output: IO[bytes], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The process, in a session of its own, so that its workers can be ended with it; its standard input is the
    lifeline that closes when this process ends."""
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(variables),
            start_new_session=True,
        )
    except OSError as error:
        raise cannot_start(command[0], str(error.strerror)) from error


def cannot_start(program: str, reason: str) -> ConfigError:
    """The error for an engine's Python that does not run."""
    return ConfigError(
        f"{program} cannot be started: {reason}",
        where="rollout.vllm.python",
        expected="the Python of an environment that has vLLM",
        fix="set rollout.vllm.python=ENV/bin/python",
    )
