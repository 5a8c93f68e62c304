"""Reads rows from files: JSONL, a JSON array, CSV, or a folder written by `datasets.save_to_disk`.

A row that cannot be read is yielded as its error, so the caller decides whether to stop or to skip it. Errors after
which no further row can be read (a broken array, bytes that are not UTF-8 in a CSV) are raised.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.data.json_array import array_elements
from rlhf.data.lines import BOM, csv_records, not_encoded, raw_lines, too_long
from rlhf.errors import DataError

Row = dict[str, Any]
NumberedRow = tuple[int, Row | DataError]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv")


@dataclass(frozen=True, slots=True)
class Location:
    """The place of rows: a file, or a `datasets` folder and the split to read."""

    path: Path
    split: str = ""


def locate(path: str) -> Location:
    """Finds `path`, or `folder#split`. Raises DataError, which names the nearest existing path, for a missing one."""
    if Path(path).exists():
        return Location(Path(path))
    folder, separator, split = path.rpartition("#")
    if separator and Path(folder).is_dir():
        return Location(Path(folder), split)
    missing = Path(folder if separator and folder else path)
    while not missing.parent.exists():
        missing = missing.parent
    siblings = sorted(entry.name for entry in missing.parent.iterdir()) if missing.parent.is_dir() else []
    nearest = difflib.get_close_matches(missing.name, siblings, n=1, cutoff=0.0)
    raise DataError(
        "no such file or folder",
        where=path,
        fix=f"the nearest is {missing.parent / nearest[0]}" if nearest else f"{missing.parent} is empty",
    )


def usable(row: Row | DataError) -> Row:
    """The row; raises the error that stands for a row that could not be read."""
    if isinstance(row, DataError):
        raise row
    return row


def sha256_of(location: Location) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder."""
    digest = hashlib.sha256()
    root = location.path
    if root.is_file():
        _update(digest, root)
        return digest.hexdigest()
    start = root / location.split if location.split else root
    for file in sorted(entry for entry in start.rglob("*") if entry.is_file()):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        _update(digest, file)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, file: Path) -> None:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)


def read_rows(location: Location, csv_encoding: str = "utf-8") -> Iterator[NumberedRow]:
    """Yields (line, row); for a folder, (row number from 1, row). Raises as described for the module.

    Files are read in bounded memory, whatever their size.
    """
    path, suffix = location.path, location.path.suffix.lower()
    if path.is_dir():
        return _read_folder(location)
    if suffix == ".csv":
        return _read_csv(path, csv_encoding)
    if suffix not in SUFFIXES:
        raise DataError(
            f"cannot read a {suffix or 'suffixless'} file",
            where=str(path),
            expected=f"{', '.join(SUFFIXES)}, or a folder written by datasets.save_to_disk",
            fix="convert it to JSONL: one JSON object per line",
        )
    if suffix == ".json" and _first_byte(path) == b"[":
        return _read_array(path)
    return _read_lines(path)


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(1 << 16).removeprefix(BOM).lstrip()[:1]


def _read_lines(path: Path) -> Iterator[NumberedRow]:
    for number, raw in raw_lines(path):
        if raw is None:
            yield number, too_long(f"{path}:{number}")
        elif raw.strip():
            yield number, _row_of_line(raw, f"{path}:{number}")


def _row_of_line(raw: bytes, where: str) -> Row | DataError:
    try:
        return _object(json.loads(raw.decode("utf-8")), where)
    except UnicodeDecodeError as error:
        return not_encoded(where, error)
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
        return DataError(
            f"invalid JSON: {error}",
            where=where,
            expected="one JSON object per line, or a .json file with one array of objects",
            fix="the line may be truncated: write the file again",
        )


def _object(value: object, where: str) -> Row | DataError:
    if isinstance(value, dict):
        return value
    return DataError(f"a row that is a {type(value).__name__}", where=where, expected="a JSON object")


def _read_array(path: Path) -> Iterator[NumberedRow]:
    for line, value in array_elements(path):
        yield line, _object(value, f"{path}:{line}")


def _read_csv(path: Path, encoding: str) -> Iterator[NumberedRow]:
    header: list[str] | None = None
    for line, cells in csv_records(path, encoding):
        if header is None:
            header = _header([cell.strip() for cell in cells], f"{path}:{line}")
        elif len(cells) != len(header):
            problem = f"{len(cells)} cells under a header of {len(header)}"
            fix = "quote cells that hold commas or newlines"
            yield line, DataError(problem, where=f"{path}:{line}", fix=fix)
        else:
            yield line, dict(zip(header, cells, strict=True))


def _header(names: list[str], where: str) -> list[str]:
    if "" in names or len(set(names)) != len(names):
        problem = f"header with an empty or repeated name: {', '.join(map(repr, names))}"
        raise DataError(problem, where=where, expected="a first line of distinct column names")
    return names


def _read_folder(location: Location) -> Iterator[NumberedRow]:
    from datasets import DatasetDict, load_from_disk  # seconds to import, and most sources are files

    path, split = location.path, location.split
    try:
        loaded = load_from_disk(str(path))
    except FileNotFoundError:
        raise DataError(
            "a folder without a dataset", where=str(path), expected="one written by datasets.save_to_disk"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"a dataset that cannot be loaded: {error}", where=str(path), fix="save it again") from None
    splits = list(loaded) if isinstance(loaded, DatasetDict) else []
    if split not in splits if splits else split:
        problem = f"no split {split!r}" if split else "a folder of several splits, without the name of one"
        names = ", ".join(f"{path}#{name}" for name in splits)
        raise DataError(problem, where=str(path), expected=names or f"{path} (it has no splits)")
    dataset = loaded[split] if splits else loaded
    for number, row in enumerate(dataset, 1):
        yield number, dict(row)
