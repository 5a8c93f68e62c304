"""Ends a rank when the launcher above it dies."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from rlhf.engine.stop_requests import StopRequest

WATCH_INTERVAL_S = 1.0
STOP_GRACE_S = 30.0
UNFINISHED = 75  # exit status of a run to be restarted with --resume auto (EX_TEMPFAIL)


def watch_launcher(stop: StopRequest) -> None:
    """Ends this process within seconds when the launcher above it dies.

    The `deepspeed` launcher does not end its ranks when it is killed; they would continue to train, holding memory
    and the lock of the run. Ranks that were asked to stop, as by a scheduler that signals every process, have half a
    minute to save.
    """
    watched = [(pid, start_time(pid)) for pid in _launchers_above()]
    if not watched:
        return

    def watch() -> None:
        while True:
            time.sleep(WATCH_INTERVAL_S)
            if any(start_time(pid) != started for pid, started in watched):
                time.sleep(STOP_GRACE_S if stop.signalled() else 0.0)
                sys.stderr.write("the launcher has ended, so this rank stops. Start again with --resume auto\n")
                sys.stderr.flush()
                os._exit(UNFINISHED)

    threading.Thread(target=watch, daemon=True, name="launcher-watch").start()


def _launchers_above() -> list[int]:
    """Process ids of the launchers this rank descends from, nearest first."""
    found, pid = [], os.getppid()
    while pid > 1:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        if not any(name in command for name in ("deepspeed", "torchrun", "torch.distributed")):
            break
        found.append(pid)
        pid = parent
    return found


def start_time(pid: int) -> str | None:
    """When the process started, in clock ticks; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
