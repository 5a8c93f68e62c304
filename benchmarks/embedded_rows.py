"""The files that a comparison reads, made of the data that ships with the package, for where there is no other."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf.data.embedded import data_path

Row = dict[str, Any]
TURNS = (1, 2, 3, 5, 2, 4)  # exchanges of successive demonstrations: rows of many lengths, as real ones are
JOINED = 3  # sentences of an answer in rankings, taken from as many rows
ANSWERS = 6


def write_rows(folder: Path) -> Path:
    """{sft,preference}_{train,dev}, ranking_train and prompts_train; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "dev"):
        rows = _read(f"demo:rankings_{part}")
        _write(folder / f"sft_{part}.jsonl", demonstrations(rows))
        _write(folder / f"preference_{part}.jsonl", rankings(rows, 2))
        _write(folder / f"ranking_{part}.jsonl", rankings(rows, ANSWERS))
        _write(folder / f"prompts_{part}.jsonl", ({"prompt": row["prompt"]} for row in rows))
    return folder


def demonstrations(rows: list[Row]) -> Iterator[Row]:
    """Chats of one to five exchanges."""
    left = iter(rows)
    for turns in itertools.cycle(TURNS):
        part = list(itertools.islice(left, turns))
        if len(part) < turns:
            return
        yield {"messages": [message for row in part for message in _exchange(row)]}


def _exchange(row: Row) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["responses"][0]}]


def rankings(rows: list[Row], answers: int) -> Iterator[Row]:
    """`answers` different answers to a prompt, each of several sentences; their order carries no meaning."""
    for start in range(0, len(rows) - JOINED * answers, JOINED):
        taken = rows[start : start + JOINED * answers]
        texts = [" ".join(row["responses"][0] for row in taken[place::answers]) for place in range(answers)]
        if len(set(texts)) == answers:
            yield {"prompt": rows[start]["prompt"], "responses": texts, "ranks": list(range(1, answers + 1))}


def _read(name: str) -> list[Row]:
    return [json.loads(line) for line in Path(data_path(name)).read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: Iterable[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
