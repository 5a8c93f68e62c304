"""A resumed run must be the same run: its configuration, data and models are compared with the checkpoint's."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rlhf.artifacts.checkpoint import Checkpoint
from rlhf.config.resuming import ChangedKey, changes, moved_data
from rlhf.config.schema import StageConfig
from rlhf.errors import CheckpointError

CONFIG = "config"  # where a checkpoint's state holds the configuration


def require_same_run(checkpoint: Checkpoint, config: StageConfig) -> list[ChangedKey]:
    """Configuration changes to report; none for a checkpoint without a configuration.

    Raises: CheckpointError, showing every difference, for another stage's checkpoint and for changed data or models.
    """
    saved: dict[str, Any] = checkpoint.state.get(CONFIG, {})
    found = changes(saved, config.model_dump(mode="json"))
    refused = [change.text for change in found if change.rule == "refused"]
    if refused:
        raise _another_run(str(checkpoint.path), refused)
    return [change for change in found if change.rule == "logged"]


def require_same_inputs(
    before: dict[str, Any] | None, now: dict[str, Any], checkpoint: Checkpoint, config: StageConfig
) -> None:
    """Compares two manifests of one run: the bytes of its data and models, whatever their names.

    Args:
        before: None where the run's manifest is gone.

    Raises: CheckpointError, showing what differs, and every source that has moved and cannot be compared.
    """
    known, found = {} if before is None else _inputs(before), _inputs(now)
    differences = [
        f"{name} {path}: its SHA-256 is {sha[:12]}, it was {known[name][1][:12]} ({known[name][0]})"
        for name, (path, sha) in found.items()
        if name in known and known[name][1] != sha
    ]
    differences += [
        f"{change.text}, and no hash of what was read there is known"
        for change in moved_data(checkpoint.state.get(CONFIG, {}), config.model_dump(mode="json"))
        if _source_at(change.key) not in known.keys() & found.keys()
    ]
    if differences:
        raise _another_run(str(checkpoint.path), differences)


def require_room(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError when the disk has no room for another checkpoint of this size."""
    needed = sum(path.stat().st_size for path in checkpoint.path.rglob("*") if path.is_file())
    free = shutil.disk_usage(checkpoint.path).free
    if free < needed:
        raise CheckpointError(
            f"{checkpoint.path.parent} has {free:,} bytes of room, and the next checkpoint takes {needed:,}",
            where="run.dir",
            fix="free or add space",
        )


def _inputs(manifest: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """(path, SHA-256) by role in the run, so that a file may move."""
    found: dict[str, tuple[str, str]] = {"tokenizer": ("", manifest["tokenizer"]["sha256"])}
    numbers: Counter[str] = Counter()
    for entry in manifest["data"]:
        numbers[entry["role"]] += 1
        found[_source(entry["role"], numbers[entry["role"]])] = (entry["path"], entry["sha256"])
    for role, entry in manifest["parents"].items():
        if "sha256" in entry:
            found[f"{role} model"] = (entry["path"], entry["sha256"])
    return found


def _source(role: str, number: int) -> str:
    return f"{role} data, source {number},"


def _source_at(key: str) -> str:
    """The name among the inputs of the source at `data.ROLE.INDEX.path`."""
    _, role, index, _ = key.split(".")
    return _source(role, int(index) + 1)


def _another_run(where: str, differences: Sequence[str]) -> CheckpointError:
    listed = "".join(f"\n  {difference}" for difference in differences)
    return CheckpointError(
        f"{where} belongs to a run on other data or models{listed}",
        expected="the data, models and seed the run was started with (docs/faults.md lists what may change)",
        fix="put them back, or start anew in another run.dir",
    )
