"""Entries that survive an interruption: a file beside the output from which an interrupted command continues.

The first line of `<out>.partial` identifies the settings; every further line is an entry, flushed to disk when it is
added. The file is removed after the output is written. A last line that a crash cut short is ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf.errors import DataError


class PartialFile:
    """Entries by key.

    Args:
        out: the output file.
        identity: everything that decides the entries; entries of other settings are refused.
        key: fields that identify an entry.

    Raises: DataError when the file has entries of other settings.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any], key: tuple[str, ...]) -> None:
        self.path = out.with_name(f"{out.name}.partial")
        self._key = key
        self.places: dict[Hashable, int] = {}  # of every entry in the file, by its key fields as a tuple
        self._identity = json.loads(json.dumps(identity))
        if self.path.exists():
            self._read_back()
        if not self.path.exists() or not self.path.stat().st_size:
            self._append([self._identity])

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Adds entries; they are on disk when this returns."""
        entries = list(entries)
        for entry, place in zip(entries, self._append(entries), strict=True):
            self.places[self._key_of(entry)] = place

    def read(self, keys: Iterable[Hashable]) -> Iterator[dict[str, Any]]:
        """The entries of these keys, in the given order."""
        with self.path.open("rb") as file:
            for key in keys:
                file.seek(self.places[key])
                yield json.loads(file.readline())

    def remove(self) -> None:
        """Deletes the file, after its entries are in the output."""
        self.path.unlink()

    def _append(self, values: Iterable[Any]) -> list[int]:
        places = []
        with self.path.open("ab") as file:
            for value in values:
                places.append(file.tell())
                file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return places

    def _key_of(self, entry: Mapping[str, Any]) -> Hashable:
        return tuple(entry[name] for name in self._key)

    def _read_back(self) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                value = json.loads(line)
                if number:
                    self.places[self._key_of(value)] = whole
                elif value != self._identity:
                    raise self._other_settings(value)
                whole += len(line)
        os.truncate(self.path, whole)

    def _other_settings(self, found: Mapping[str, Any]) -> DataError:
        names = [name for name in self._identity if found.get(name) != self._identity[name]]
        return DataError(
            f"holds what an interrupted run had done, with another {', '.join(names) or 'setting'}",
            where=str(self.path),
            fix="repeat the settings of that run to continue it, delete the file, or write to another --out",
        )
