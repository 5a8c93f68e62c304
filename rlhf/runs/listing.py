"""Many runs in a table: what each is, what became of it, and the best it reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.cells import cell_len

from rlhf.artifacts.files import read_json
from rlhf.artifacts.run_folder import RunFolder
from rlhf.errors import ArtifactError
from rlhf.runs.record import Row, read_lines

JOB = "job.json"  # what a sweep leaves of a run it has queued
DEPTH = 3  # folders below a named one that are looked through
LEAST, MOST = min, max
BEST = {
    "sft": (("eval_loss", LEAST), ("loss", LEAST)),
    "reward": (("eval_accuracy", MOST), ("accuracy", MOST)),
    "ppo": (("eval_reward", MOST), ("reward", MOST)),
}


@dataclass(frozen=True, slots=True)
class Best:
    """The best value of a metric and its step; held-out where the run measured it."""

    metric: str
    value: float
    step: int


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in a line.

    status: that of state.json, or `killed` (running, but nobody holds the lock), `queued` (a job that has not begun)
        or `not started`.
    parents: run or model by role. when: the last change of its state, seconds since the epoch; 0 where there is none.
    """

    path: Path
    stage: str
    status: str
    reason: str
    step: int
    best: Best | None
    parents: dict[str, str]
    when: float


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


def summarise(path: Path) -> RunSummary:
    """A run in a line, from its files alone."""
    folder = RunFolder(path)
    state = folder.state()
    metrics = read_lines(folder.metrics)
    manifest = read_json(path / "manifest.json") if (path / "manifest.json").is_file() else {}
    stage = str(state.get("stage") or manifest.get("stage") or "")
    logged = int(metrics[-1].get("step", 0)) if metrics else 0
    marks = [path / name for name in ("state.json", JOB) if (path / name).is_file()]
    return RunSummary(
        path,
        stage,
        status_of(folder),
        str(state.get("reason", "")),
        max(int(state.get("step", 0)), logged),
        best_of(stage, metrics),
        _parents(manifest),
        marks[0].stat().st_mtime if marks else 0.0,
    )


def status_of(folder: RunFolder) -> str:
    """What became of a run, the lock asked where state.json cannot know."""
    status = folder.status()
    if status == "running" and not folder.holder():
        return "killed"
    return status or ("queued" if (folder.path / JOB).is_file() else "not started")


def best_of(stage: str, metrics: Sequence[Row]) -> Best | None:
    """The best of the first of the stage's metrics that was logged with a finite value."""
    for name, better in BEST.get(stage, ()):
        values = [(float(row[name]), int(row["step"])) for row in metrics if name in row]
        finite = [each for each in values if math.isfinite(each[0])]
        if finite:
            value, step = better(finite, key=lambda each: each[0])
            return Best(name, value, step)
    return None


def best_first(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Runs of one stage, the best first; those without a value last, as they came."""

    def place(run: RunSummary) -> float:
        if run.best is None:
            return math.inf
        better = dict(BEST[run.stage])[run.best.metric]
        return run.best.value if better is LEAST else -run.best.value

    return sorted(runs, key=place)


def _parents(manifest: Row) -> dict[str, str]:
    """Role to run: `runs/a` where a stage made its `runs/a/model`. A role that repeats another's is left out."""
    found: dict[str, str] = {}
    for role, entry in manifest.get("parents", {}).items():
        path = Path(entry["path"])
        name = str(path.parent) if path.name == "model" and "stage" in entry else str(path)
        if name not in found.values():
            found[role] = name
    return found


def runs_table(runs: Sequence[RunSummary]) -> str:
    """A line a run under a head."""
    head = ("run", "stage", "status", "steps", "best", "at step", "when", "starts from")
    return columns(head, [(*_cells(run), _when(run.when), ", ".join(run.parents.values())) for run in runs])


def _cells(run: RunSummary) -> tuple[str, ...]:
    best = ("", "") if run.best is None else (f"{run.best.metric} {run.best.value:.4g}", str(run.best.step))
    return (str(run.path), run.stage, run.status, str(run.step), *best)


def _when(seconds: float) -> str:
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
