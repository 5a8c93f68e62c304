"""Reads rows from files: JSON lines or an array, CSV, TSV, Excel, Parquet, Arrow, folders, data sets of the hub.

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

from rlhf.data.byte_streams import COMPRESSED, TEXT_SUFFIXES, inner_suffix, opened
from rlhf.data.hub_sets import is_hub_id, snapshot_of
from rlhf.data.json_array import array_elements
from rlhf.data.lines import BOM, csv_records, not_encoded, raw_lines, too_long
from rlhf.data.tables import ARROW_SUFFIXES, EXCEL_SUFFIXES, TABLE_SUFFIXES, read_arrow, read_excel, read_folder
from rlhf.errors import DataError

Row = dict[str, Any]
NumberedRow = tuple[int, Row | DataError]
SUFFIXES = (*TEXT_SUFFIXES, *TABLE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Location:
    """The place of rows: a file, or a folder and what to read of it. For an Excel file `split` names the sheet."""

    path: Path
    split: str = ""
    config: str = ""


def locate(path: str) -> Location:
    """Finds a file, a folder or a data set of the hub; `#split`, `#config/split` or, for Excel, `#sheet` may follow.

    Raises: DataError for what is neither here nor on the hub; it names the nearest existing path, or the cache.
    """
    if Path(path).exists():
        return Location(Path(path))
    name, _, part = path.rpartition("#") if "#" in path else (path, "", "")
    config, _, split = part.rpartition("/")
    place = Path(name)
    if "#" in path and (place.is_dir() or (place.is_file() and place.suffix.lower() in EXCEL_SUFFIXES)):
        return Location(place, part) if place.is_file() else Location(place, split, config)
    if is_hub_id(name):
        return Location(snapshot_of(name), split, config)
    raise _absent(path, name)


def _absent(path: str, name: str) -> DataError:
    missing = Path(name or path)
    while not missing.parent.exists():
        missing = missing.parent
    siblings = sorted(entry.name for entry in missing.parent.iterdir()) if missing.parent.is_dir() else []
    nearest = difflib.get_close_matches(missing.name, siblings, n=1, cutoff=0.0)
    return DataError(
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
    digest, root = hashlib.sha256(), location.path
    if root.is_file():
        return _digested(root, digest).hexdigest()
    start = root / location.split
    start = start if location.split and start.is_dir() else root  # splits of the hub have no folder of their own
    for file in sorted(entry for entry in start.rglob("*") if entry.is_file()):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        _digested(file, digest)
    return digest.hexdigest()


def _digested(file: Path, digest: hashlib._Hash) -> hashlib._Hash:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: digest)


def read_rows(location: Location, csv_encoding: str = "utf-8") -> Iterator[NumberedRow]:
    """Yields (line, row); for a folder, (row number from 1, row). Raises as described for the module.

    Files are read in bounded memory, whatever their size.
    """
    path, suffix = location.path, inner_suffix(location.path)
    if path.is_dir():
        return iter(read_folder(path, location.config, location.split))
    if path.suffix.lower() in ARROW_SUFFIXES:
        return iter(read_arrow(path))
    if path.suffix.lower() in EXCEL_SUFFIXES:
        return _under_header(read_excel(path, location.split), path)
    if suffix in (".csv", ".tsv"):
        return _under_header(csv_records(path, csv_encoding, "\t" if suffix == ".tsv" else ","), path)
    if suffix not in TEXT_SUFFIXES:
        raise DataError(
            f"cannot read a {path.suffix or 'suffixless'} file",
            where=str(path),
            expected=f"{', '.join(SUFFIXES)}, text also with {', '.join(COMPRESSED)}, or a folder of `datasets`",
            fix="convert it to JSONL: one JSON object per line",
        )
    with opened(path) as stream:
        begins = stream.read(1 << 16).removeprefix(BOM).lstrip()
    if begins.startswith(b"["):
        return ((line, _object(value, f"{path}:{line}")) for line, value in array_elements(path))
    return _read_lines(path)


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
            expected="one JSON object per line, or one array of objects",
            fix=_json_fix(raw.strip()),
        )


def _json_fix(line: bytes) -> str:
    if line.startswith((b"{'", b"[{'")):
        return "single quotes are Python's notation: write rows with json.dumps(row, ensure_ascii=False)"
    if line in (b"{", b"}") or (line.startswith(b'"') and line.endswith((b",", b"{", b"["))):
        return "an object over several lines: write each on one line, as with jq -c . OLD > NEW"
    return "the line may be truncated: write the file again"


def _object(value: object, where: str) -> Row | DataError:
    if isinstance(value, dict):
        return value
    return DataError(f"a row that is a {type(value).__name__}", where=where, expected="a JSON object")


def _under_header(records: Iterator[tuple[int, list[str]]], path: Path) -> Iterator[NumberedRow]:
    """Rows of a table whose first record names the columns."""
    header: list[str] | None = None
    for line, cells in records:
        if header is None:
            header = _header([cell.strip() for cell in cells], f"{path}:{line}")
        elif len(cells) != len(header):
            problem = f"{len(cells)} cells under a header of {len(header)}"
            fix = "quote cells that hold commas, tabs or newlines"
            yield line, DataError(problem, where=f"{path}:{line}", fix=fix)
        else:
            yield line, dict(zip(header, cells, strict=True))


def _header(names: list[str], where: str) -> list[str]:
    if "" in names or len(set(names)) != len(names):
        problem = f"header with an empty or repeated name: {', '.join(map(repr, names))}"
        raise DataError(problem, where=where, expected="a first line of distinct column names")
    return names
