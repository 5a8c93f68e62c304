"""What a kept result was measured with: hashes of the code and of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from harness import ROOT

MEASURED_CODE = ("rlhf", "scripts", "configs", "benchmarks")
ONLY_REPORTS = ("all.py", "bench_rows.py", "bench_table.py", "bench_parts.py")  # a part's words are in its stamp


@cache
def code_hash() -> str:
    """SHA-256 of what a part runs, which is not what makes the table."""
    return files_hash([ROOT / name for name in MEASURED_CODE])


def files_hash(folders: Sequence[Path]) -> str:
    """SHA-256 of the names and contents of files."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if "__pycache__" not in path.parts and path.name not in ONLY_REPORTS:
                digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
