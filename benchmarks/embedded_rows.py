"""The files that a comparison reads, made of the data that ships with the package, for where there is no other."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf.data.embedded import data_path

Row = dict[str, Any]
SENTENCES = (1, 2, 3, 5, 2, 4)  # of the prompt and the answer of successive demonstrations: rows of many lengths
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
    """Exchanges whose prompt and answer are those of one to five rows, joined."""
    left = iter(rows)
    for count in itertools.cycle(SENTENCES):
        part = list(itertools.islice(left, count))
        if len(part) < count:
            return
        asked, answered = " ".join(row["prompt"] for row in part), " ".join(row["responses"][0] for row in part)
        yield {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}


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
