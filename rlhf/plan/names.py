"""The model that a run folder will hold: read from the configurations of the stages before the folder exists."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import yaml

from rlhf.config.load import load_config
from rlhf.config.shipped import config_file
from rlhf.config.stages import STAGES
from rlhf.errors import RlhfError


def models_of_runs(config_path: str | Path) -> dict[str, str]:
    """run.dir -> model.path of the stages configured in the same folder as `config_path`."""
    found: dict[str, str] = {}
    for file in sorted(config_file(config_path).resolve().parent.glob("*.y*ml")):
        if file.stem not in ("sft", "reward", "dpo"):
            continue
        with suppress(RlhfError, yaml.YAMLError):
            config = load_config(STAGES[file.stem].config, file)
            found[config.run.dir.rstrip("/")] = config.model.path
    return {run: _followed(path, found) for run, path in found.items()}


def _followed(path: str, found: dict[str, str]) -> str:
    """The base model of a stage that starts from the run of another stage."""
    seen: set[str] = set()
    while path.rstrip("/") in found and path not in seen:
        seen.add(path)
        path = found[path.rstrip("/")]
    return path
