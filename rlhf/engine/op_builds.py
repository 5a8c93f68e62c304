"""One lock around every build of a DeepSpeed op, held by the process that builds.

torch locks its extension cache by the existence of a file: a process killed while it builds leaves the file, and every
later start waits for ever without a message. This project uses a cache of its own, where a file can be left only by a
process that held the system's lock and died: the lock is free then, and the file is removed. A build that is still
running holds the lock and is waited for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import IO, Any

import torch

from rlhf.errors import TrainingError

NOTICE_S = 15.0


@dataclass(frozen=True, slots=True)
class OpCache:
    """torch's extension cache; `own` where nobody but this project writes to it."""

    path: Path
    own: bool

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Holds the cache while `what` is built. Removes locks of torch that dead processes left in a cache of ours.

        Raises: TrainingError when the cache cannot be written.
        """
        with self._opened() as guard, _notice(self._waiting(what)):
            fcntl.flock(guard, fcntl.LOCK_EX)
            for leftover in self.path.glob("*/lock") if self.own else ():
                leftover.unlink(missing_ok=True)
            yield

    def _opened(self) -> IO[str]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return (self.path / "rlhf.lock").open("w")
        except OSError as error:
            raise TrainingError(
                f"DeepSpeed's ops cannot be built in {self.path}: {error.strerror}",
                fix="set TORCH_EXTENSIONS_DIR to a folder that can be written",
            ) from error

    def _waiting(self, what: str) -> str:
        said = f"building DeepSpeed's {what} in {self.path}, or waiting for another process that builds (20 to 60 s)"
        left = "" if self.own else f"; if no process builds, delete {self.path}/*/lock"
        return f"{said}{left}\n"


def guard_op_builds() -> OpCache:
    """Sets the cache of this process, and makes every op builder of DeepSpeed build and load under its lock."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    cache = _cache()
    os.environ["TORCH_EXTENSIONS_DIR"] = str(cache.path)
    # This environment's ninja, also when it is not activated: another ninja would rebuild the op at each start.
    first = f"{Path(sys.executable).parent}{os.pathsep}"
    if not os.environ.get("PATH", "").startswith(first):
        os.environ["PATH"] = first + os.environ.get("PATH", "")
    if not hasattr(OpBuilder.jit_load, "__wrapped__"):
        OpBuilder.jit_load = _guarded(OpBuilder.jit_load)
    return cache


def _guarded(build: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(build)
    def locked_build(self: Any, verbose: bool = True) -> Any:
        with _cache().locked(f"{self.name} op"):
            return build(self, verbose)

    return locked_build


def _cache() -> OpCache:
    """The user's TORCH_EXTENSIONS_DIR, or one of this environment: two that shared it would take turns rebuilding."""
    environment = hashlib.sha256(f"{sys.prefix} {torch.__version__}".encode()).hexdigest()[:12]
    own = Path.home() / ".cache" / "rlhf" / "extensions" / environment
    path = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or own)
    return OpCache(path, own=path == own)


@contextmanager
def _notice(text: str) -> Iterator[None]:
    """Writes `text` to stderr if the block takes long."""
    notice = threading.Timer(NOTICE_S, sys.stderr.write, [text])
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()
