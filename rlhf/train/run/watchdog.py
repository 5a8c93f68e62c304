"""Per-rank watchdog: a thread that ends the rank when another rank failed, when a process of another rank on this
machine is gone, or when a step takes too long. A rank that waits for another in a collective cannot do so itself.
"""

from __future__ import annotations

import faulthandler
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
from rlhf.engine.ranks import Ranks, start_time

INTERVAL_S = 1.0
GRACE_S = 4.0  # for the main thread to end by itself, and for other ranks to report where they are
SHARED_ERROR_S = 0.3  # an error that all ranks raise is reported by rank 0
WAITING = ("/torch/distributed/", "/deepspeed/comm/", "/engine/ranks.py")  # a rank in one of these waits for others


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
        self._folder, self._ranks, self._step, self._failed = folder, ranks, step, failed
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
        other = self._others_failure() if _is_communication(error) else None
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
            since = self._armed_since
            if since is None or self._step() != step:
                step, began = self._step(), time.monotonic()
            elif self._timeout_s is not None and time.monotonic() - max(began, since) > self._timeout_s:
                self._end(RankFailure(self._ranks.rank, step, self._hung(step, self._timeout_s)))

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

    def _hung(self, step: int, timeout_s: float) -> str:
        """One sentence on where every rank is; the full stacks go to hang/ and stderr."""
        folder = self._folder / "hang"
        here, waits = self._place()
        folder.mkdir(exist_ok=True)
        own = folder / f"rank-{self._ranks.rank:04d}.txt"
        with own.open("w", encoding="utf-8") as file:
            file.write(f"rank {self._ranks.rank} {'waits for others' if waits else 'hangs'} in {here}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
        time.sleep(GRACE_S)
        reported = [_reported(folder / f"rank-{rank:04d}.txt", rank) for rank in range(self._ranks.world_size)]
        places = "; ".join(sorted(reported, key=lambda text: "waits for others" in text))
        return f"step {step + 1} did not end within {timeout_s / 60:g} minutes (run.watchdog_minutes): {places}"

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


def _reported(file: Path, rank: int) -> str:
    try:
        return file.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return f"rank {rank} does not answer"


def _is_communication(error: BaseException) -> bool:
    """Whether the end of another rank can cause this error."""
    words = ("gloo", "NCCL", "onnection closed", "reset by peer", "onnection refused", "ProcessGroup", "TCPStore")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
