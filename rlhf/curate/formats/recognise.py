"""Recognises files that hold no rows, such as chat exports, plain text or binary files, and how to convert them."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import NamedTuple

from rlhf.curate.chats.exports import APPS, export_format
from rlhf.data.byte_streams import inner_suffix, opened
from rlhf.data.readers import SUFFIXES
from rlhf.data.tables import TABLE_SUFFIXES
from rlhf.errors import DataError

HEAD_BYTES = 64 << 10
MAX_OBJECT_BYTES = 64 << 20
_BINARY = {
    b"PK\x03\x04": "a ZIP archive (or an office document)",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "an old office document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
}


class Recognised(NamedTuple):
    """What a file is, what to do with it, and whether `rlhf data import` can convert it."""

    name: str
    fix: str
    importable: bool


def recognise(path: Path) -> Recognised | None:
    """What `path` is if it is not a file of rows; None where its rows can be read, as far as its start shows.

    Raises:
        OSError: when the file cannot be read.
    """
    if not path.is_file():
        return Recognised("not a regular file", "give a file or a folder written by datasets.save_to_disk", False)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return None  # its reader says whether it can be read
    with opened(path) as file:
        head = file.read(HEAD_BYTES)
    return _by_head(path, head) if head.strip() else None


def _by_head(path: Path, head: bytes) -> Recognised | None:
    if app := _chat_app(path):
        fix = f"rlhf data import --format {app} --in {path} --out rows.jsonl --me NAME converts it"
        return Recognised(f"a chat exported by {APPS[app]}", fix, True)
    if found := _binary(head):
        return found
    text, encoding = _decoded(head)
    if text is None and path.suffix.lower() in (".jsonl", ".ndjson"):
        return None  # the error of each line says whether it can be read
    if text is None:
        fix = "write it as UTF-8; a Korean file is often CP949: iconv -f cp949 -t utf-8 OLD > NEW"
        return Recognised("text in an unknown encoding", fix, False)
    return _text(path, text, encoding)


def _chat_app(path: Path) -> str | None:
    try:
        return export_format(path)
    except DataError:
        return None


def _text(path: Path, text: str, encoding: str) -> Recognised | None:
    suffix = inner_suffix(path)
    if suffix == ".json" and (found := _one_object(path, text)):
        return found
    if suffix in SUFFIXES and suffix not in (".csv", ".tsv"):
        return None  # the error of each line of JSON says whether it can be read
    if encoding != "UTF-8":
        command = f"iconv -f {encoding.lower()} -t utf-8 {path} > NEW"
        return Recognised(f"text in {encoding}, not in UTF-8", command, False)
    return None if suffix in SUFFIXES else _plain(path, text)


def _plain(path: Path, text: str) -> Recognised:
    if text.lstrip()[:1] in "{[" and path.suffix.lower() in ("", ".txt"):
        right = ".jsonl" if text.lstrip()[0] == "{" else ".json"
        return Recognised(f"JSON in a {path.suffix or 'suffixless'} file", f"name it {path.stem}{right}", False)
    fix = f"give rows: {', '.join(SUFFIXES)} with one object per row, for example {{prompt, response}}"
    return Recognised(f"text that is not a known chat export ({path.suffix or 'no suffix'})", fix, False)


def _one_object(path: Path, head: str) -> Recognised | None:
    """A JSON object over several lines, which is not a row: rows are lines, or elements of an array."""
    first = head.strip().partition("\n")[0].strip()
    if not first.startswith("{") or first.endswith("}") or path.stat().st_size > MAX_OBJECT_BYTES:
        return None
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    lists = [key for key, each in value.items() if isinstance(each, list) and each and isinstance(each[0], dict)]
    keys = ", ".join(f"`{key}`" for key in list(value)[:8])
    fix = f"write the list under `{lists[0]}` alone" if lists else "write an array of rows, or JSONL: one row per line"
    return Recognised(f"one JSON object with {keys}, not rows", fix, False)


def _binary(head: bytes) -> Recognised | None:
    fix = f"give rows in UTF-8: {', '.join(SUFFIXES)}; a .zip is unpacked first"
    for start, name in _BINARY.items():
        if head.startswith(start):
            return Recognised(name, fix, False)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Recognised("text in UTF-16", "iconv -f utf-16 -t utf-8 OLD > NEW", False)
    # A stray NUL is a fault of its line; a file with many of them is not text.
    return Recognised("a binary file", fix, False) if head.count(0) > max(16, len(head) // 100) else None


def _decoded(head: bytes) -> tuple[str | None, str]:
    """The start of a file as text, and its encoding; the last character may be incomplete."""
    for encoding, name in (("utf-8-sig", "UTF-8"), ("cp949", "CP949")):
        try:
            return codecs.getincrementaldecoder(encoding)().decode(head), name
        except UnicodeDecodeError:
            continue
    return None, ""
