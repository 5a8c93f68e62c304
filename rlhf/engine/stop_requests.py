"""A wish that the run stop, heard by one rank and agreed on by all."""

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
    """What this rank was asked, and what all ranks agreed on.

    `agreed` is the same on every rank at the same place of the program: it changes only where sums over all ranks are
    taken (`Ranks.global_sum`), to which each rank adds its own wish. It costs no message of its own.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.agreed = False
        self._file: Path | None = None
        self._last_look = 0.0
        self._signals: int | None = None

    def ask(self, reason: str) -> None:
        """Asks for a stop after this step; the first reason stays."""
        self.reason = self.reason or reason

    def watch_file(self, path: Path) -> None:
        """Its presence asks as well; looked for at most once a second."""
        self._file = path

    def heard(self) -> bool:
        """Whether this process got a signal to stop, even while its main thread is where Python handles none."""
        if self._signals is not None and not self.reason:
            with suppress(BlockingIOError):
                for number in os.read(self._signals, 64):
                    if number in SIGNALS:
                        self.ask(signal.Signals(number).name)
        return bool(self.reason)

    @contextmanager
    def noting_signals(self) -> Iterator[None]:
        """Lets `heard` know of signals at once."""
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

    def wished(self) -> bool:
        """Whether this rank was asked."""
        if self._file is not None and not self.reason and time.monotonic() - self._last_look >= LOOK_INTERVAL_S:
            self._last_look = time.monotonic()
            if self._file.exists():
                self.ask(f"the file {self._file}")
        return bool(self.reason)


@contextmanager
def heeding_signals(request: StopRequest) -> Iterator[None]:
    """SIGTERM and SIGUSR1 ask for a stop while active, instead of ending the process.

    Outside of the main thread, where Python takes no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: FrameType | None) -> None:
        request.ask(signal.Signals(number).name)

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        with request.noting_signals():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
