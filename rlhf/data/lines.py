"""Streams the lines of text files, bounded in length and strictly decoded, and the records of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from rlhf.data.byte_streams import opened
from rlhf.errors import DataError

BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 16 << 20  # bytes; a longer line is a file without line ends, not a row
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks; Excel calls such files Unicode text
KOREAN_ENCODINGS = ("utf-8", "cp949")


def raw_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line with its end, without a byte order mark); None for a line over `LONGEST_LINE`.

    Lines end at b"\\n" only: str.splitlines would also split at U+2028 inside a JSON string.
    """
    with opened(path) as stream:
        number = 1
        while raw := stream.readline(LONGEST_LINE + 1):
            whole = len(raw) <= LONGEST_LINE
            while not whole and not raw.endswith(b"\n") and (raw := stream.readline(1 << 20)):
                pass
            yield number, (raw.removeprefix(BOM) if number == 1 else raw) if whole else None
            number += 1


def too_long(where: str) -> DataError:
    return DataError(
        f"a line of more than {LONGEST_LINE >> 20} MiB",
        where=where,
        expected="one row per line",
        fix="the file may have lost its line ends: write it again",
    )


def not_encoded(where: str, error: UnicodeDecodeError) -> DataError:
    """The error for bytes that are not text in the expected encoding."""
    if error.encoding != "utf-8":
        problem = f"byte {error.object[error.start]:#04x} is neither UTF-8 nor {error.encoding.upper()}"
        return DataError(problem, where=where, fix="save the file as UTF-8, or delete the damaged line")
    if error.object.startswith(UTF_16):
        return DataError("UTF-16 text", where=where, expected="UTF-8 text", fix="iconv -f utf-16 -t utf-8 OLD > NEW")
    if error.reason == "unexpected end of data":
        problem = "the file ends in the middle of a character"
        return DataError(problem, where=where, expected="UTF-8 text", fix="the file may be truncated: write it again")
    return DataError(
        f"byte {error.object[error.start]:#04x} is not UTF-8",
        where=where,
        expected="UTF-8 text",
        fix="files saved by Korean Windows are often CP949: iconv -f cp949 -t utf-8 OLD > NEW",
    )


def decoded_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """(number from 1, line with its end). Raises DataError, with file and line, at the first line that is not text."""
    for number, raw in raw_lines(path):
        if raw is None:
            raise too_long(f"{path}:{number}")
        try:
            yield number, raw.decode(encoding)
        except UnicodeDecodeError as error:
            raise not_encoded(f"{path}:{number}", error) from None


def encoding_of(path: Path) -> str:
    """ "utf-8" or "cp949", by the first line with Hangul; "utf-8" without any.

    Raises DataError for UTF-16.
    """
    for number, raw in raw_lines(path):
        if number == 1 and raw is not None and raw.startswith(UTF_16):
            fix = "iconv -f utf-16 -t utf-8 OLD > NEW"
            raise DataError("UTF-16 text", where=f"{path}:1", expected="UTF-8 or CP949", fix=fix)
        if raw is None or raw.isascii():
            continue
        for encoding in KOREAN_ENCODINGS:
            try:
                text = raw.decode(encoding)
            except UnicodeDecodeError:
                continue
            if any("가" <= character <= "힣" for character in text):
                return encoding
            break  # a line of UTF-8 without Hangul; as CP949, most short ones would read as Hangul
    return "utf-8"


def csv_records(path: Path, encoding: str = "utf-8", delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of every record that is not a blank line.

    Raises DataError, with file and line, for unbalanced quotes, and as `decoded_lines`.
    """
    reader = csv.reader((text for _, text in decoded_lines(path, encoding)), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fix = 'a cell\'s closing " is missing, or a " inside a cell is not doubled'
            raise DataError(f"invalid CSV: {error}", where=f"{path}:{line}", fix=fix) from None
        if cells:
            yield line, cells
