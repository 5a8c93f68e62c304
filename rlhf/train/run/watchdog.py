"""Per-rank watchdog: a thread that ends the rank when another rank failed, when a process of another rank on this
machine is gone, or when a step takes too long. A rank that waits for another in a collective cannot do so itself.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf.artifacts.run_folder import FailureRecord, RankFailure
from rlhf.engine.launcher_watch import start_time
from rlhf.engine.messages import arrivals, breaks_connection
from rlhf.engine.ranks import Ranks
from rlhf.train.run.hang_reports import HangFolder, HangReport, described, hanging

INTERVAL_S = 1.0
GRACE_S = 4.0  # for the main thread to end by itself, and for other ranks to report where they are
SHARED_ERROR_S = 0.3  # an error that all ranks raise is reported by rank 0
WAITING = ("/torch/distributed/", "/deepspeed/comm/", "/engine/messages.py")  # a rank in one of these waits for others


class Watchdog:
    """Args:
    folder: the run's folder, where ranks leave messages for each other.
    step: the last step completed.
    timeout_s: how long a step may take while the watchdog is `armed`; None is unlimited.
    failed: writes the reason into state.json before the process ends; called on the rank that `reports`.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        *,
        step: Callable[[], int],
        timeout_s: float | None,
        failed: Callable[[str], None],
    ) -> None:
        self._ranks, self._step, self._failed = ranks, step, failed
        self._hang, self._reported = HangFolder(folder), False
        self._timeout_s = timeout_s
        self._record = FailureRecord(folder)
        self._peers = _peers(ranks)
        self._done = threading.Event()
        self._armed_since: float | None = None
        self._main = threading.main_thread().ident

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Runs the thread. Ranks leave this block together, or by an error."""
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()
        try:
            yield
            self._ranks.barrier()
        finally:
            self._done.set()

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Inside, every step must end in time."""
        self._armed_since = time.monotonic()
        try:
            yield
        finally:
            self._armed_since = None

    def cause(self, error: BaseException) -> tuple[RankFailure, bool]:
        """The failure behind this rank's error, and whether it is this rank's own and the first."""
        other = self._others_failure() if breaks_connection(error) else None
        if not self._ranks.is_main and other is None:
            time.sleep(SHARED_ERROR_S)
        own = RankFailure(self._ranks.rank, self._step(), str(error) or type(error).__name__)
        first = self._record.write(other or own)
        return first, first == own

    def reports(self, failure: RankFailure) -> bool:
        """Whether this rank reports a failure and writes state.json: rank 0, or rank 1 when rank 0 is gone."""
        gone = self._gone() if failure.rank == 0 and self._ranks.rank == 1 else None
        return self._ranks.is_main or (gone is not None and gone.rank == 0)

    def _others_failure(self) -> RankFailure | None:
        """Why another rank broke the connection, once that is known."""
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            found = self._record.read() or self._gone()
            if found is not None:
                return found
            time.sleep(0.05)
        return None

    def _watch(self) -> None:
        step, began = -1, time.monotonic()
        while not self._done.wait(INTERVAL_S):
            failure = self._record.read() or self._gone()
            if failure is not None and failure.rank != self._ranks.rank:
                self._end(failure)
            if self._hang.asked():
                self._report()
            since = self._armed_since
            if since is None or self._step() != step:
                step, began = self._step(), time.monotonic()
            elif self._timeout_s is not None and time.monotonic() - max(began, since) > self._timeout_s:
                self._end(self._hung(step, self._timeout_s))

    def _gone(self) -> RankFailure | None:
        for rank, (pid, started) in self._peers.items():
            if start_time(pid) != started:
                reason = f"rank {rank} (process {pid}) is gone: it was killed, by hand or for want of memory"
                return RankFailure(rank, self._step(), reason)
        return None

    def _end(self, failure: RankFailure) -> None:
        """Ends this process, unless it ends by itself in time."""
        if self._done.wait(GRACE_S):
            return
        failure = self._record.write(failure)
        if self.reports(failure):
            sys.stderr.write(f"{failure.reason}\nthe run ends. Start again with --resume auto\n")
            self._failed(failure.reason)
        sys.stderr.flush()
        os._exit(1)

    def _hung(self, step: int, timeout_s: float) -> RankFailure:
        """The rank that the others wait for, and one sentence on where every rank is."""
        self._report()
        time.sleep(GRACE_S)
        reports = self._hang.read(self._ranks.world_size)
        guilty = [*hanging(reports), self._ranks.rank][0]
        said = f"step {step + 1} did not end within {timeout_s / 60:g} minutes (run.watchdog_minutes)"
        return RankFailure(guilty, step, f"{said}: {described(reports)}")

    def _report(self) -> None:
        """Writes where this rank is, once: all ranks do so within a second of the first, so that counts compare."""
        if self._reported:
            return
        self._reported = True
        arrived = arrivals(self._ranks.messages)
        self._hang.write(HangReport(self._ranks.rank, *self._place(), arrived))

    def _place(self) -> tuple[str, bool]:
        """The line of this package that the main thread is at, and whether it waits for other ranks there."""
        frame = sys._current_frames().get(self._main or 0)
        stack = traceback.extract_stack(frame) if frame is not None else []
        ours = [entry for entry in stack if "/rlhf/" in entry.filename] or stack
        waits = any(word in entry.filename for entry in stack for word in WAITING)
        return (f"{ours[-1].filename}:{ours[-1].lineno} ({ours[-1].name})" if ours else "an unknown place"), waits


def _peers(ranks: Ranks) -> dict[int, tuple[int, str | None]]:
    """Process and start time of the other ranks that are visible from here: on this machine, in this container."""
    me = (socket.gethostname(), os.getpid(), start_time(os.getpid()))
    return {
        rank: (pid, started)
        for rank, (host, pid, started) in enumerate(ranks.gather(me))
        if host == me[0] and rank != ranks.rank and start_time(pid) == started
    }
