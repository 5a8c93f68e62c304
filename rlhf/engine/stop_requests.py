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

    @contextmanager
    def _receiving_signals(self) -> Iterator[None]:
        """Lets `signalled` see signals at once."""
        self._signals, end = os.pipe()
        for descriptor in (self._signals, end):
            os.set_blocking(descriptor, False)
        before = signal.set_wakeup_fd(end, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            reading, self._signals = self._signals, None
            for descriptor in (reading, end):
                os.close(descriptor)

    def requested(self) -> bool:
        """Whether this rank has a request to stop."""
        if self._file is not None and not self.reason and time.monotonic() - self._last_look >= LOOK_INTERVAL_S:
            self._last_look = time.monotonic()
            if self._file.exists():
                self.ask(f"the file {self._file}")
        return bool(self.reason)


@contextmanager
def signals_request_stop(request: StopRequest) -> Iterator[None]:
    """While active, SIGTERM and SIGUSR1 request a stop instead of ending the process.

    Does nothing outside of the main thread, where Python cannot handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: FrameType | None) -> None:
        request.ask(signal.Signals(number).name)

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        with request._receiving_signals():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
