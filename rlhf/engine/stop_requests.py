"""Requests to stop a run: received by one rank, agreed across ranks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
LOOK_INTERVAL_S = 1.0


class StopRequest:
    """The request this rank received, and whether all ranks agreed to stop.

    `agreed` is the same on every rank at the same point of the program: it changes only in sums over all ranks
    (`Ranks.global_sum`), to which each rank adds its own request, so that it costs no message of its own.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.agreed = False
        self._file: Path | None = None
        self._last_look = 0.0
        self._signals: int | None = None

    def ask(self, reason: str) -> None:
        """Requests a stop after this step; the first reason is kept."""
        self.reason = self.reason or reason

    def watch_file(self, path: Path) -> None:
        """Treats the existence of a file as a request; checked at most once per second."""
        self._file = path

    def signalled(self) -> bool:
        """Whether this process received a signal to stop, also while its main thread is blocked outside of Python."""
        if self._signals is not None and not self.reason:
            with suppress(BlockingIOError):
                for number in os.read(self._signals, 64):
                    if number in SIGNALS:
                        self.ask(signal.Signals(number).name)
        return bool(self.reason)

    def requested(self) -> bool:
        """Whether this rank has a request to stop."""
        if self._file is not None and not self.reason and time.monotonic() - self._last_look >= LOOK_INTERVAL_S:
            self._last_look = time.monotonic()
            if self._file.exists():
                self.ask(f"the file {self._file}")
        return bool(self.reason)


@contextmanager
def signals_request_stop(request: StopRequest) -> Iterator[None]:
    """While active, SIGTERM and SIGUSR1 request a stop instead of ending the process; `signalled` sees them at once.

    Does nothing outside of the main thread, where Python cannot handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: FrameType | None) -> None:
        request.ask(signal.Signals(number).name)

    handlers = {number: signal.signal(number, ask) for number in SIGNALS}
    reading, end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    request._signals, wakeup = reading, signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        request._signals = None
        os.close(reading)
        os.close(end)
        for number, handler in handlers.items():
            signal.signal(number, handler)
