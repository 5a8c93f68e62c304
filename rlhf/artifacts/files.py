"""Files that are written atomically: beside their place, flushed, renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf.errors import ArtifactError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
SHORT_HASH = 12  # hexadecimal digits
TORCH_WRITER = ("PytorchStreamWriter", "inline_container", "iostream error")


def write_text(path: Path, text: str) -> None:
    """Replaces `path` in one step; a crash or a full disk leaves the old file or the new one."""
    beside = path.with_name(f".{path.name}.writing")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    beside.replace(path)
    flush_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def short_hash(digest: object) -> str:
    """The first digits of a hash, enough to compare two by eye; empty for none."""
    return str(digest or "")[:SHORT_HASH]


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False) + "\n")


@contextmanager
def scratch_beside(out: Path, purpose: str) -> Iterator[Path]:
    """A new folder on the disk of `out`, removed afterwards unless it was renamed.

    Raises: ArtifactError when it cannot be made.
    """
    folder = out.with_name(f".{purpose}-{out.name}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ArtifactError(f"cannot write beside {out}: {error.strerror}", where="--out") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def flush_folder(folder: Path) -> None:
    """Makes names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Makes every file below `folder`, and the names in it, durable."""
    for path in sorted(folder.rglob("*"), reverse=True):
        flush_folder(path)  # fsync works alike on a file opened for reading
    flush_folder(folder)


def sha256_of(path: Path) -> str:
    """Hash of a file, or of every file of a folder by name."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted(item.relative_to(path) for item in path.rglob("*") if item.is_file())
    lines = [f"{sha256_of(path / name)}  {name}" for name in names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def refusal(error: OSError | RuntimeError) -> str | None:
    """Why the disk took no more, in words; None for an error of another kind.

    torch's writer throws a RuntimeError that says where in its source it happened, not what the system answered.
    """
    if isinstance(error, OSError):
        return error.strerror if error.errno in DISK_ERRORS else None
    if any(word in str(error) for word in TORCH_WRITER):
        return f"the disk is full, or takes no file of that size ({str(error).splitlines()[0]})"
    return None
