"""Rows of tables in bounded memory: Parquet, Arrow and Excel files, `datasets` folders and snapshots of the hub.

Whatever `datasets` can read is read through it, as a stream. A key that some rows of a column of objects lack is null
in Arrow, and counts as absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf.errors import DataError, require_packages

Row = dict[str, Any]
ARROW_SUFFIXES = {".parquet": "parquet", ".arrow": "arrow"}
EXCEL_SUFFIXES = (".xlsx", ".xlsm")
TABLE_SUFFIXES = (*ARROW_SUFFIXES, *EXCEL_SUFFIXES)


def read_arrow(path: Path) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) of a Parquet or Arrow file."""
    from datasets import load_dataset  # seconds to import, and most sources are text

    kind = ARROW_SUFFIXES[path.suffix.lower()]
    with _told(path):
        stream = load_dataset(kind, data_files=str(path), split="train", streaming=True)
        yield from _numbered(stream)


def read_folder(folder: Path, config: str, split: str) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) of a folder that `datasets` wrote, or of one that looks like a repository of the hub."""
    with _told(folder):
        yield from _numbered(_saved(folder, split) if is_saved(folder) else _snapshot(folder, config, split))


def is_saved(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote the folder."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _saved(folder: Path, split: str) -> Any:
    from datasets import DatasetDict, load_from_disk

    loaded = load_from_disk(str(folder))
    splits = list(loaded) if isinstance(loaded, DatasetDict) else []
    if not splits and split:
        raise DataError(f"no split {split!r}", where=str(folder), expected=f"{folder} (it has no splits)")
    return loaded[_chosen(folder, splits, split, "")] if splits else loaded


def _snapshot(folder: Path, config: str, split: str) -> Any:
    """Rows of a folder of data files, as its README or their names say which split they belong to."""
    from datasets import get_dataset_config_names, load_dataset_builder

    configs = get_dataset_config_names(str(folder))
    if config not in configs and (config or len(configs) > 1):
        problem = f"no configuration {config!r}" if config else "several configurations, without the name of one"
        expected = ", ".join(f"{folder}#{name}/SPLIT" for name in configs)
        raise DataError(problem, where=str(folder), expected=expected)
    builder = load_dataset_builder(str(folder), name=config or None)
    splits = [str(name) for name in builder.config.data_files or {}]
    chosen = _chosen(folder, splits, split, f"{config}/" if config else "")
    return builder.as_streaming_dataset(split=chosen)


def _chosen(folder: Path, splits: list[str], split: str, config: str) -> str:
    """The split that is read: the named one, or the only one."""
    if split in splits:
        return split
    if not split and len(splits) == 1:
        return splits[0]
    problem = f"no split {split!r}" if split else "a folder of several splits, without the name of one"
    raise DataError(problem, where=str(folder), expected=", ".join(f"{folder}#{config}{name}" for name in splits))


def _numbered(rows: Any) -> Iterator[tuple[int, Row]]:
    for number, row in enumerate(rows, 1):
        yield number, dict(row)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what `datasets`, Arrow and openpyxl raise about a file into a DataError of one line."""
    try:
        yield
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001 (each of these packages has its own errors, and raises those of others)
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = str(cause).splitlines() or [type(cause).__name__]
        what = "a folder without a dataset" if path.is_dir() else "a table that cannot be read"
        expected = "one written by datasets.save_to_disk, or data files as on the hub" if path.is_dir() else ""
        fix = "make or download it again"
        raise DataError(f"{what}: {lines[0]}", where=str(path), expected=expected, fix=fix) from None


def read_excel(path: Path, sheet: str) -> Iterator[tuple[int, list[str]]]:
    """(row number, cells as text) of a sheet of an Excel file, without empty rows; the first sheet if none is named.

    Raises: ConfigError without the package openpyxl; DataError for a file or sheet that cannot be read.
    """
    require_packages("openpyxl", extra="excel", needed_by=str(path), otherwise="save it as CSV (UTF-8)")
    from openpyxl import load_workbook

    with _told(path):
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            if sheet and sheet not in book.sheetnames:
                expected = ", ".join(f"{path}#{name}" for name in book.sheetnames)
                raise DataError(f"no sheet {sheet!r}", where=str(path), expected=expected)
            chosen = book[sheet] if sheet else book[book.sheetnames[0]]
            for number, values in enumerate(chosen.iter_rows(values_only=True), 1):
                cells = ["" if value is None else str(value) for value in values]
                if any(cells):
                    yield number, cells
        finally:
            book.close()
