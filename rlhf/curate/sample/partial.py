"""Entries that survive an interruption: a file beside the output that an interrupted command goes on from.

`<out>.partial` holds a first line that says which work it belongs to, then an entry a line, flushed to disk as they
come. It goes when the output is written. A last line that a crash cut off is not an entry.
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
        out: file that the entries are for.
        identity: everything that decides them; entries of other work are refused.
        key: fields of an entry that name it.

    Raises: DataError when entries of other work are there.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any], key: tuple[str, ...]) -> None:
        self.path = out.with_name(f"{out.name}.partial")
        self._key = key
        self._places: dict[Hashable, int] = {}
        self._identity = json.loads(json.dumps(identity))
        if self.path.exists():
            self._read_back()
        if not self.path.exists() or not self.path.stat().st_size:
            self._append([self._identity])

    @property
    def keys(self) -> set[Hashable]:
        """What there is: the key fields of every entry, as tuples."""
        return set(self._places)

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Writes entries so that no crash can lose them."""
        entries = list(entries)
        for entry, place in zip(entries, self._append(entries), strict=True):
            self._places[self._key_of(entry)] = place

    def read(self, keys: Iterable[Hashable]) -> Iterator[dict[str, Any]]:
        """The entries of these keys, in their order."""
        with self.path.open("rb") as file:
            for key in keys:
                file.seek(self._places[key])
                yield json.loads(file.readline())

    def remove(self) -> None:
        """Takes the file away: its entries are where they belong."""
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
                    self._places[self._key_of(value)] = whole
                elif value != self._identity:
                    raise self._other_work(value)
                whole += len(line)
        os.truncate(self.path, whole)

    def _other_work(self, found: Mapping[str, Any]) -> DataError:
        names = [name for name in self._identity if found.get(name) != self._identity[name]]
        return DataError(
            f"holds what an interrupted run made with another {', '.join(names) or 'setting'}",
            where=str(self.path),
            fix="give the settings of that run again to go on with it, delete the file, or write to another --out",
        )
