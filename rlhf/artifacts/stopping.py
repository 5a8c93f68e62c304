"""Asking a live run to stop, from another process."""

from __future__ import annotations

import time
from pathlib import Path

from rlhf.artifacts.run_folder import RunFolder
from rlhf.errors import ArtifactError

POLL_INTERVAL_S = 0.2


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
