"""Opens a file as the bytes that it holds: .gz, .bz2, .xz and .zst files are decompressed as they are read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rlhf.errors import DataError


def _open_zst(path: Path) -> BinaryIO:
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}
TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
COMPRESSED = tuple(_OPENERS)
_BUFFER = 1 << 20


def inner_name(path: Path) -> str:
    """The file's name without the suffix of its compression."""
    return path.stem if path.suffix.lower() in _OPENERS else path.name


def inner_suffix(path: Path) -> str:
    """The suffix that says what the bytes are, in lower case: .jsonl of rows.jsonl.gz."""
    return Path(inner_name(path)).suffix.lower()


def name_of(path: str) -> str:
    """The name of a source by default: that of its file, folder or data set, without suffixes and split."""
    return Path(inner_name(Path(path.partition("#")[0]))).stem


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed where its name says so.

    Raises: DataError when the compressed data is damaged or cut, also while the caller reads.
    """
    suffix = path.suffix.lower()
    if suffix not in _OPENERS:
        with path.open("rb") as plain:
            yield plain
        return
    damaged: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, OSError)
    with path.open("rb"):
        pass  # a file that cannot be opened is no damaged file
    try:
        with _OPENERS[suffix](path) as stream:
            yield stream
    except damaged as error:
        raise DataError(
            f"the {suffix} file is damaged or cut: {error or type(error).__name__}",
            where=str(path),
            fix="make or download it again",
        ) from None
