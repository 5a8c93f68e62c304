"""A run folder as its files describe it, finished or not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rlhf.artifacts.changed_keys import changed_keys, shown
from rlhf.artifacts.files import read_json
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.stages import STAGES
from rlhf.errors import ArtifactError

Row = dict[str, Any]
JOB = "job.json"  # what a sweep leaves of a run it has queued
LOWEST, HIGHEST = min, max
BEST = {
    "sft": (("eval/loss", LOWEST), ("loss", LOWEST)),
    "reward": (("eval/accuracy", HIGHEST), ("reward_model/accuracy", HIGHEST)),
    "ppo": (("eval/reward", HIGHEST), ("objective/reward", HIGHEST)),
    "dpo": (("eval/preference_loss", LOWEST), ("loss", LOWEST)),
}


@dataclass(frozen=True, slots=True)
class Best:
    """The best value of a metric and its step; held-out where the run measured it."""

    metric: str
    value: float
    step: int


@dataclass(frozen=True)
class RunRecord:
    """A run folder; each file is read when it is first asked for. Lists are empty, and mappings empty or None, where
    the run left no such file."""

    path: Path

    @cached_property
    def folder(self) -> RunFolder:
        return RunFolder(self.path)

    @cached_property
    def state(self) -> Row:
        return self.folder.state()

    @cached_property
    def manifest(self) -> Row:
        return _json(self.path / "manifest.json") or {}

    @cached_property
    def config(self) -> Row:
        return yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8")) or {}

    @cached_property
    def metrics(self) -> list[Row]:
        return read_lines(self.folder.metrics)

    @cached_property
    def samples(self) -> list[Row]:
        return read_lines(self.folder.samples)

    @cached_property
    def trips(self) -> list[Row]:
        return read_lines(self.folder.tripwires)

    @cached_property
    def abandoned(self) -> list[Row]:
        """Metrics of iterations that a rollback took back."""
        return read_lines(self.folder.abandoned)

    @cached_property
    def control(self) -> Row | None:
        """Stage 3's comparison with its control group."""
        return _json(self.path / "control.json")

    @cached_property
    def card(self) -> Row | None:
        """Stage 2's report card; None for one that scored no pair."""
        card = _json(self.folder.model / "report_card.json")
        return card if card and card.get("num_pairs") else None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def stage(self) -> str:
        """`sft`, `reward`, `ppo` or `dpo`; empty where no file says."""
        return str(self.state.get("stage") or self.manifest.get("stage") or "")

    @property
    def reason(self) -> str:
        """Why the run ended early; empty where it did not."""
        return str(self.state.get("reason", ""))

    @property
    def step(self) -> int:
        """The last step completed."""
        logged = int(self.metrics[-1].get("step", 0)) if self.metrics else 0
        return max(int(self.state.get("step", 0)), logged)

    @cached_property
    def status(self) -> str:
        return status_of(self.folder)

    @cached_property
    def best(self) -> Best | None:
        return best_of(self.stage, self.metrics)


def status_of(folder: RunFolder) -> str:
    """That of state.json, or `killed` (running, but no process holds the lock), `queued` (a job that has not begun) or
    `not started`."""
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


def read_run(path: Path) -> RunRecord:
    """Reads the whole run folder.

    Raises: ArtifactError when it has no config.yaml, or one of no known stage.
    """
    record = RunRecord(path)
    if not (path / "config.yaml").is_file():
        raise ArtifactError(
            f"{path} holds no config.yaml",
            expected="a run folder, as a stage leaves it",
            fix="name the run folder itself, not its model/",
        )
    if record.stage not in STAGES:
        raise ArtifactError(
            f"{path} is of stage {record.stage!r}",
            expected=f"one of {', '.join(STAGES)}",
            fix="use a run of this project",
        )
    for name, value in vars(RunRecord).items():
        if isinstance(value, cached_property):
            getattr(record, name)
    return record


def differences(record: RunRecord) -> list[tuple[str, str, str]]:
    """(key, value, default) of every key of the run's config that is not at its default."""
    return [(key, shown(value), shown(default)) for key, value, default in changed_keys(record.config, record.stage)]


def flat(values: Row, prefix: str = "") -> Row:
    """Leaves by dotted key; lists and empty mappings are leaves."""
    found: Row = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        found |= flat(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
    return found


def _json(path: Path) -> Row | None:
    return read_json(path) if path.is_file() else None


def read_lines(path: Path) -> list[Row]:
    """Objects of a JSONL file; a last line cut short by a crash is skipped."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:  # an empty or broken line
            continue
    return rows
