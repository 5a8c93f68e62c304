"""What a kept result was measured with: hashes of the code and of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from harness import ROOT

MEASURED_CODE = ("rlhf", "scripts", "configs", "benchmarks")
ONLY_REPORTS = ("all.py", "bench_rows.py", "bench_table.py", "bench_parts.py")  # a part's words are in its stamp
ROWS = ("sft", "preference", "ranking", "prompts")


@cache
def code_hash() -> str:
    """SHA-256 of what a part runs, which is not what makes the table."""
    found = (path for name in MEASURED_CODE for path in (ROOT / name).rglob("*") if path.is_file())
    return files_hash(path for path in found if "__pycache__" not in path.parts and path.name not in ONLY_REPORTS)


@cache
def rows_hash(folder: Path) -> str:
    """SHA-256 of the files of rows that a part may read."""
    found = (folder / f"{name}_{split}.jsonl" for name in ROWS for split in ("train", "dev"))
    return files_hash(path for path in found if path.is_file())


def files_hash(paths: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
