"""Files that are whole or absent: written beside, flushed, renamed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Replaces `path` in one step; a crash leaves the old file or the new one."""
    beside = path.with_name(f".{path.name}.writing")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    flush_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` with indented JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


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
