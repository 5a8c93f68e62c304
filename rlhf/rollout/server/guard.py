"""An engine never outlives its trainer."""

from __future__ import annotations

import ctypes
import os
import signal
import threading

PR_SET_PDEATHSIG = 1


def end_with(parent: int, lifeline: int) -> None:
    """Ends this process group as soon as the trainer is gone, whatever the engine is doing.

    Two ways that fail independently: the kernel kills this process when the thread that started it ends, and a thread
    here reads the lifeline, a pipe whose other end only the trainer holds, until it closes. The second also ends the
    workers that the engine started.

    Args:
        parent: process id of the trainer.
        lifeline: file descriptor of the pipe.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        end_group()
    threading.Thread(target=_watch, args=(lifeline,), name="lifeline", daemon=True).start()


def _watch(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    end_group()


def end_group() -> None:
    """Kills this process and those it started; the process must lead its group."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
