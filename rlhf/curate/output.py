"""The file a data command writes: written atomically, never partial, with a manifest that accounts for every row.

Rows stream into a temporary file beside the output, which replaces the output after the last row; a crash or a bad
row leaves the earlier output as it was. `<out>.manifest.json` holds the command, its options, the inputs with
their hashes, and the rows kept and dropped by reason with a few examples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from tqdm import tqdm

from rlhf import __version__
from rlhf.artifacts.files import flush_folder, write_json
from rlhf.data.readers import locate, sha256_of
from rlhf.data.row_values import encodable
from rlhf.errors import DataError

EXAMPLES = 5  # of each reason, in the manifest
Item = TypeVar("Item")


class Output:
    """A JSONL file that is being written; use it as a context manager.

    Args:
        path: file to write; its folder is created.
        command: as typed after `rlhf`, e.g. "data filter".
        inputs: files that are read; the manifest holds their hashes.
        options: every option that decides the rows.

    Raises:
        DataError: on construction, when `path` is a folder, is one of the inputs, or cannot be written.
    """

    def __init__(self, path: Path, *, command: str, inputs: Sequence[str | Path], options: Mapping[str, Any]) -> None:
        self.path, self.command, self.options = path, command, dict(options)
        self.inputs = [str(file) for file in inputs]
        self.kept = 0
        self.dropped: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}
        self.extra: dict[str, Any] = {}  # further entries of the manifest
        self._beside = path.with_name(f".{path.name}.writing")
        _check_writable(path, self.inputs)

    def __enter__(self) -> Self:
        self._file = self._beside.open("w", encoding="utf-8", newline="\n")
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds one row."""
        line = json.dumps(row, ensure_ascii=False)
        if not encodable(line):
            line = json.dumps(row)  # half a surrogate pair is not UTF-8; escaped, it survives
        self._file.write(line + "\n")
        self.kept += 1

    def drop(self, reason: str, example: str = "") -> None:
        """Counts a dropped row; the manifest keeps the first few examples of each reason."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if example and len(shown) < EXAMPLES:
            shown.append(example[:200])

    def count(self, name: str, amount: int = 1) -> None:
        """Counts something that is not a row, e.g. masked phone numbers; 0 leaves no entry."""
        if amount:
            self.counts[name] = self.counts.get(name, 0) + amount

    def count_all(self, amounts: Mapping[str, int], prefix: str = "") -> None:
        """Counts several things, each name after `prefix`."""
        for name, amount in amounts.items():
            self.count(f"{prefix}{name}", amount)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._file.close()
            self._beside.unlink()
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._beside.replace(self.path)
        flush_folder(self.path.parent)
        write_json(manifest_path(self.path), self.manifest())

    def manifest(self) -> dict[str, Any]:
        """What `<out>.manifest.json` holds."""
        return {
            "command": self.command,
            "version": __version__,
            "options": self.options,
            "inputs": [{"path": file, "sha256": sha256_of(locate(file))} for file in self.inputs],
            "kept": self.kept,
            "dropped": self.dropped,
            "examples_of_dropped": {reason: shown for reason, shown in self.examples.items() if shown},
            "counts": self.counts,
            **self.extra,
        }

    def summary(self) -> str:
        """One line for the terminal: the file, the rows kept, and the rows dropped by reason."""
        dropped = ", ".join(f"{number} {reason}" for reason, number in self.dropped.items() if number)
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        parts = (f"{self.path}: {self.kept} rows", f"dropped {dropped}" if dropped else "", counts)
        return "; ".join(filter(None, parts))


def manifest_path(path: Path) -> Path:
    """The file of an output's manifest."""
    return path.with_name(f"{path.name}.manifest.json")


def progress(
    items: Iterable[Item], description: str, total: int | None = None, *, unit: str = " rows"
) -> Iterator[Item]:
    """The items, with a progress bar on stderr where that is a terminal."""
    return iter(tqdm(items, desc=description, total=total, unit=unit, disable=None, leave=False))


def _check_writable(path: Path, inputs: Sequence[str]) -> None:
    if path.is_dir():
        raise DataError("is a folder", where=str(path), expected="a file", fix=f"--out {path}/data.jsonl")
    if any(Path(file).exists() and path.exists() and path.samefile(file) for file in inputs):
        raise DataError("is also an input", where=str(path), fix="write to another file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.writing").touch()
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=str(path), fix="choose another --out") from None
