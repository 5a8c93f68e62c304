"""What a run folder says about a job: its steps, why it ended, its checkpoints and its result file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf.artifacts.run_folder import RunFolder

MAX_REASON_CHARACTERS = 2000
_TAIL_BYTES = 64 << 10
# An error's own lines, without what the launcher logs after it.
_ERROR = re.compile(rb"^\w+Error: .*?(?=^\[\d{4}-\d\d-\d\d |^\[rank\d+\]|^\w+Error: |\Z)", re.MULTILINE | re.DOTALL)
# Names in OpenAI's events and result files, and in metrics.jsonl, where a stage logs one of them.
_NAMES = {
    "train_loss": ("loss",),
    "train_accuracy": ("reward_model/accuracy", "preference/accuracy"),
    "valid_loss": ("eval/loss", "eval/preference_loss"),
    "valid_accuracy": ("eval/accuracy",),
    "train_mean_reward": ("objective/reward",),
    "valid_mean_reward": ("eval/reward",),
}


class MetricsTail:
    """Reads the new lines of a run's metrics.jsonl; from the beginning again when a resumed run truncated it."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def read(self) -> Iterator[dict[str, Any]]:
        """New steps; a line that is not complete yet is read next time."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            if file.seek(0, 2) < self._offset:
                self._offset = 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                if (values := _parsed(line)) is not None:
                    yield values


def step_figures(values: dict[str, Any]) -> dict[str, Any]:
    """A step's metrics under the names OpenAI's clients know."""
    found = {name: values[each] for name, ours in _NAMES.items() for each in ours if each in values}
    return {"step": int(values["step"]), **found}


def step_message(figures: dict[str, Any]) -> str:
    """`Step 4: training loss=2.31, validation loss=2.40`."""
    words = ", ".join(f"{name}={value:.4g}" for name, value in figures.items() if name != "step")
    spelled = words.replace("train_", "training ").replace("valid_", "validation ").replace("_", " ")
    return f"Step {figures['step']}: {spelled}"


def all_steps(folder: RunFolder) -> list[dict[str, Any]]:
    return list(MetricsTail(folder.metrics).read())


def result_table(steps: list[dict[str, Any]]) -> str:
    """The figures of every step as CSV."""
    rows = [step_figures(values) for values in steps]
    columns = ["step", *(name for name in _NAMES if any(name in row for row in rows))]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def checkpoints(folder: RunFolder) -> list[dict[str, Any]]:
    """Complete checkpoints, newest first: step, created_at and the step's figures."""
    by_step = {int(values["step"]): step_figures(values) for values in all_steps(folder)}
    found = []
    for path in folder.checkpoints.glob("step-*"):
        trainer = path / "trainer.json"
        if trainer.is_file():
            step = int(json.loads(trainer.read_text(encoding="utf-8"))["step"])
            created_at = int(trainer.stat().st_mtime)
            found.append({"step": step, "created_at": created_at, "figures": by_step.get(step, {"step": step})})
    return sorted(found, key=lambda each: -each["step"])


def reason_of(folder: Path) -> str:
    """Why a job's run ended: the reason in its state, else the error in its log, else the log's last lines."""
    state = RunFolder(folder / "run").state()
    if state.get("status") == "failed" and state.get("reason"):
        return str(state["reason"])[:MAX_REASON_CHARACTERS]
    log = folder / "log.txt"
    if not log.is_file():
        return "the run left no log"
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
        tail = file.read()
    if match := _ERROR.search(tail):
        return match[0].decode(errors="replace").strip()[:MAX_REASON_CHARACTERS]
    last_lines = "\n".join(tail.decode(errors="replace").splitlines()[-5:])
    return last_lines[-MAX_REASON_CHARACTERS:] or "the run's log is empty"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A logged step; None for a line that a crash cut short."""
    try:
        values = json.loads(line)
        return values if isinstance(values, dict) and "step" in values else None
    except ValueError:
        return None
