"""Many runs in a table: what each is, what became of it, and the best value it reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.cells import cell_len

from rlhf.errors import ArtifactError
from rlhf.runs.record import BEST, JOB, LOWEST, RunRecord

DEPTH = 3  # folders below a named one that are searched
HEAD = ("run", "stage", "status", "steps", "best", "at step", "when", "starts from")


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The run folders among and below `folders`.

    Raises: ArtifactError for a folder that does not exist.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ArtifactError(f"no such folder: {folder}", expected="run folders, or folders that hold some")
        found |= dict.fromkeys(_below(folder, DEPTH))
    return list(found)


def _below(folder: Path, depth: int) -> list[Path]:
    if is_run(folder):
        return [folder]
    if depth == 0:
        return []
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [run for path in inner for run in _below(path, depth - 1)]


def is_run(folder: Path) -> bool:
    """Whether a stage, or a sweep for one, has been here."""
    return (folder / "state.json").is_file() or (folder / JOB).is_file()


def best_first(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs of one stage, the best first; those without a value last, as they came."""

    def place(run: RunRecord) -> float:
        if run.best is None:
            return math.inf
        better = dict(BEST[run.stage])[run.best.metric]
        return run.best.value if better is LOWEST else -run.best.value

    return sorted(runs, key=place)


def last_change(run: RunRecord) -> float:
    """When the run's state last changed, seconds since the epoch; 0 where there is none."""
    marks = [run.path / name for name in ("state.json", JOB) if (run.path / name).is_file()]
    return marks[0].stat().st_mtime if marks else 0.0


def runs_table(runs: Sequence[RunRecord]) -> str:
    """One line per run under a head."""
    return columns(
        HEAD,
        [
            (str(run.path), run.stage, *outcome_cells(run), _written(last_change(run)), ", ".join(_parents(run)))
            for run in runs
        ],
    )


def outcome_cells(run: RunRecord) -> tuple[str, str, str, str]:
    """Status, steps, best value and its step."""
    best = ("", "") if run.best is None else (f"{run.best.metric} {run.best.value:.4g}", str(run.best.step))
    return (run.status, str(run.step), *best)


def _parents(run: RunRecord) -> list[str]:
    """The models it started from, each once: `runs/a` where a stage made its `runs/a/model`."""
    found: dict[str, None] = {}
    for entry in run.manifest.get("parents", {}).values():
        path = Path(entry["path"])
        found[str(path.parent) if path.name == "model" and "stage" in entry else str(path)] = None
    return list(found)


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else ""


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in columns as wide as their widest cell; Hangul takes two places."""
    lines = [head, *rows]
    widths = [max(cell_len(line[number]) for line in lines) for number in range(len(head))]
    text = ""
    for line in lines:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        text += "  ".join(padded).rstrip() + "\n"
    return text
