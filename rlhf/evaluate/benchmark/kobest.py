"""KoBEST from local files: the five tasks, the keys of their rows, and the files of a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import write_text
from rlhf.data.readers import Row, locate, read_rows
from rlhf.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Task:
    """A task of KoBEST: the keys of its text, and the number of choices per question."""

    name: str
    keys: tuple[str, ...]
    choices: int = 2


# Keys as in skt/kobest_v1 (Kim et al., COLING 2022).
KOBEST: dict[str, Task] = {
    task.name: task
    for task in (
        Task("boolq", ("paragraph", "question")),
        Task("copa", ("premise", "question", "alternative_1", "alternative_2")),
        Task("hellaswag", ("context", "ending_1", "ending_2", "ending_3", "ending_4"), 4),
        Task("sentineg", ("sentence",)),
        Task("wic", ("word", "context_1", "context_2")),
    )
}


def find_files(folder: str, split: str) -> dict[str, Path]:
    """Each task's file of a split: FOLDER/boolq/test.jsonl (or .parquet, test-00000-of-00001.parquet ...), and for the
    test split FOLDER/boolq.jsonl too. Tasks without a file are skipped."""
    root = Path(folder)
    found = {}
    for name in KOBEST:
        places = [entry for entry in sorted((root / name).glob(f"{split}*")) if entry.suffix in SUFFIXES]
        if split == "test":
            places += [root / f"{name}{suffix}" for suffix in SUFFIXES]
        for place in places:
            if place.is_file():
                found[name] = place
                break
    return found


def write_rows(task: Task, file: Path, out: Path, limit: int | None = None) -> int:
    """Checks a task's rows and copies them to JSONL; returns their number.

    Raises: DataError, naming file and row, for a missing key or a label that is not a choice.
    """
    lines: list[str] = []
    for number, row in _rows(file):
        if len(lines) == limit:
            break
        lines.append(json.dumps(_checked(task, row, f"{file}:{number}"), ensure_ascii=False) + "\n")
    if not lines:
        raise DataError("no rows", where=str(file), expected="at least one row")
    write_text(out, "".join(lines))
    return len(lines)


def _rows(file: Path) -> Iterator[tuple[int, Row | DataError]]:
    if file.suffix != ".parquet":
        yield from read_rows(locate(str(file)))
        return
    from pyarrow import ArrowInvalid, parquet

    try:
        yield from enumerate(parquet.read_table(file).to_pylist(), 1)
    except ArrowInvalid as error:
        raise DataError(f"not a parquet file: {error}", where=str(file), fix="download it again") from None


def _checked(task: Task, row: Row | DataError, where: str) -> Mapping[str, Any]:
    if isinstance(row, DataError):
        raise row
    needed = (*task.keys, "label")
    missing = [key for key in needed if row.get(key) is None]
    if missing:
        raise DataError(f"no key {', '.join(missing)}", where=where, expected=f"{task.name} rows: {', '.join(needed)}")
    label = str(row["label"])
    if not label.isdigit() or int(label) >= task.choices:
        raise DataError(f"label {row['label']!r}", where=where, expected=f"0 to {task.choices - 1}")
    if task.name == "copa" and str(row["question"]).strip() not in ("원인", "결과"):
        raise DataError(f"question {row['question']!r}", where=where, expected="원인 or 결과")
    return {**{key: str(row[key]) for key in task.keys}, "label": int(label)}
