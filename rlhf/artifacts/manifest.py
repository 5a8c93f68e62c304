"""manifest.json: what an artifact was made from, by hash, and with which packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rlhf
from rlhf.artifacts.files import read_json, sha256_of
from rlhf.errors import ArtifactError

PACKAGES = ("torch", "transformers", "deepspeed", "peft", "datasets", "accelerate", "tokenizers")


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found = {"rlhf": rlhf.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def parent_entry(path: str) -> dict[str, Any]:
    """A parent model: its path, hash and, when this project made it, its stage and own parents' data."""
    folder = Path(path)
    entry: dict[str, Any] = {"path": path}
    if folder.is_dir():
        entry["sha256"] = sha256_of(folder)
        manifest = manifest_of(path)
        if manifest is not None:
            entry["stage"] = manifest["stage"]
            entry["data"] = manifest["data"]
            entry["parents"] = manifest["parents"]
    return entry


def manifest_of(path: str) -> dict[str, Any] | None:
    """The manifest of the run a model folder belongs to, or None."""
    for folder in (Path(path), Path(path).parent):
        file = folder / "manifest.json"
        if file.is_file():
            return read_json(file)
    return None


def require_stage(path: str, stage: str, *, key: str) -> None:
    """Refuses a model that was not made by `stage`.

    Raises: ArtifactError that says what the folder is instead.
    """
    manifest = manifest_of(path)
    found = None if manifest is None else manifest["stage"]
    if found != stage:
        what = "has no manifest.json" if found is None else f"was made by stage {found}"
        raise ArtifactError(
            f"{path} {what}",
            where=key,
            expected=f"an artifact made by stage {stage}: a model with any other head gives random numbers",
            fix="train one: deepspeed scripts/step2_reward.py --config ...",
        )


def build_manifest(
    *,
    stage: str,
    parents: dict[str, str],
    data: list[dict[str, Any]],
    tokenizer: dict[str, Any],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The manifest of a run that starts now.

    parents: role to model path. data: one report per source. settings: whatever else decided the result.
    """
    return {
        "stage": stage,
        "parents": {role: parent_entry(path) for role, path in parents.items()},
        "data": data,
        "tokenizer": tokenizer,
        "settings": settings,
        "packages": package_versions(),
    }
