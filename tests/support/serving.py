"""`rlhf serve` as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def service_process(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The service on a free port, without jobs, and what it said until it served; killed at the end."""
    command = [sys.executable, "-m", "rlhf", "serve", "--port", "0", "--no-jobs", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        said = ""
        while "serving on" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process, said
    finally:
        process.kill()
        process.communicate()
