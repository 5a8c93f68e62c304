"""A run folder as its files tell it, finished or not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlhf.artifacts.files import read_json
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.stages import STAGES
from rlhf.errors import ArtifactError

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run folder holds; lists are empty and dictionaries None where the run left no such file.

    abandoned: metrics of iterations that a rollback took back; control: stage 3's comparison; card: stage 2's.
    """

    path: Path
    stage: str
    state: Row
    config: Row
    manifest: Row
    metrics: list[Row]
    samples: list[Row]
    trips: list[Row]
    abandoned: list[Row]
    control: Row | None
    card: Row | None


def read_run(path: Path) -> RunRecord:
    """Reads a run folder, finished or not.

    Raises: ArtifactError when it has no config.yaml, or one of no known stage.
    """
    folder = RunFolder(path)
    file = path / "config.yaml"
    if not file.is_file():
        raise ArtifactError(
            f"{path} holds no config.yaml",
            expected="a run folder, as a stage leaves it",
            fix="name the run folder itself, not its model/",
        )
    manifest = _json(path / "manifest.json") or {}
    state = folder.state()
    stage = str(state.get("stage") or manifest.get("stage") or "")
    if stage not in STAGES:
        raise ArtifactError(
            f"{path} is of stage {stage!r}", expected=f"one of {', '.join(STAGES)}", fix="use a run of this project"
        )
    return RunRecord(
        path,
        stage,
        state,
        yaml.safe_load(file.read_text(encoding="utf-8")) or {},
        manifest,
        read_lines(folder.metrics),
        read_lines(folder.samples),
        read_lines(folder.tripwires),
        read_lines(folder.abandoned),
        _json(path / "control.json"),
        _json(folder.model / "report_card.json"),
    )


def differences(record: RunRecord) -> list[tuple[str, str, str]]:
    """(key, value, default) of every key of the run's config that is not at its default."""
    defaults = flat(STAGES[record.stage].config().model_dump(mode="json"))
    return [
        (key, shown(value), shown(defaults[key]) if key in defaults else "(no such key now)")
        for key, value in flat(record.config).items()
        if key not in defaults or defaults[key] != value
    ]


def flat(values: Row, prefix: str = "") -> Row:
    """Leaves by dotted key; lists and empty mappings are leaves."""
    found: Row = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        found |= flat(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
    return found


def shown(value: Any) -> str:
    """A value in few characters: of data sources, their paths."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "path" in each for each in value):
        return ", ".join(str(each["path"]) for each in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(path: Path) -> Row | None:
    return read_json(path) if path.is_file() else None


def read_lines(path: Path) -> list[Row]:
    """Objects of a JSONL file; a last line cut short by a crash is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:  # an empty or broken line
            continue
    return rows
