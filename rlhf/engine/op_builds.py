"""Builds DeepSpeed's ops: one at a time on a machine, under a lock that dies with its holder.

torch locks its extension cache by the existence of a file: a process killed while it builds leaves the file, and every
later start waits for ever without a message. This project therefore uses a cache of its own, in which all builds hold
the system's lock: a file that is there while nobody holds that lock was left by a process that has ended.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rlhf.errors import TrainingError

NOTICE_S = 15.0


def op_cache() -> Path:
    """Where ops are kept: $TORCH_EXTENSIONS_DIR, else a folder per environment, as two environments that shared one
    would take turns rebuilding an op."""
    shared = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(shared) if shared else _own_cache()


def _own_cache() -> Path:
    import torch

    environment = hashlib.sha256(f"{sys.prefix} {torch.__version__}".encode()).hexdigest()[:12]
    return Path.home() / ".cache" / "rlhf" / "extensions" / environment


def _opened(cache: Path) -> IO[str]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return (cache / "rlhf.lock").open("w")
    except OSError as error:
        raise TrainingError(
            f"DeepSpeed's ops cannot be built in {cache}: {error.strerror}",
            fix="set TORCH_EXTENSIONS_DIR to a folder that can be written",
        ) from error


@contextmanager
def op_builds(name: str) -> Iterator[None]:
    """While active, this process alone builds or loads ops of this cache; `name` is said while it waits.

    Raises: TrainingError when the cache cannot be written.
    """
    cache = op_cache()
    ours = cache == _own_cache()
    os.environ["TORCH_EXTENSIONS_DIR"] = str(cache)
    # This environment's ninja, also when it is not activated: another ninja would rebuild the op at each start.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    guard = _opened(cache)
    text = f"building DeepSpeed's {name} in {cache}, or waiting for another process that does (20 to 60 s)\n"
    notice = threading.Timer(NOTICE_S, sys.stderr.write, [text])
    notice.daemon = True
    notice.start()
    try:
        with guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            for leftover in cache.glob("*/lock") if ours else ():
                leftover.unlink(missing_ok=True)
            yield
    finally:
        notice.cancel()
