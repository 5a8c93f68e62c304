"""Run folders as a stage leaves them, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import write_json
from rlhf.config.load import dump_config, load_config
from rlhf.config.stages import STAGES


def write_run(
    path: Path,
    stage: str = "sft",
    *overrides: str,
    status: str = "finished",
    metrics: list[dict[str, Any]] | None = None,
    parents: dict[str, str] | None = None,
    **manifest: Any,
) -> Path:
    """config.yaml, manifest.json, metrics.jsonl and state.json of a run at `path`."""
    path.mkdir(parents=True)
    words = [*overrides, f"run.dir={path}"]
    (path / "config.yaml").write_text(dump_config(load_config(STAGES[stage].config, None, words)), encoding="utf-8")
    entries = {role: {"path": parent} for role, parent in (parents or {}).items()}
    write_json(path / "manifest.json", {"stage": stage, "parents": entries, **manifest})
    lines = [json.dumps(row) + "\n" for row in metrics or []]
    (path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    write_json(path / "state.json", {"status": status, "stage": stage, "step": len(lines), "reason": ""})
    return path
