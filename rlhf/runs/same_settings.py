"""Whether a folder that is continued was begun with the same settings, data and models."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from rlhf.artifacts import files
from rlhf.artifacts.changed_keys import shown
from rlhf.artifacts.manifest import manifest_of
from rlhf.config.load import load_config
from rlhf.config.schema import StageConfig
from rlhf.config.sections import Section
from rlhf.data import readers
from rlhf.data.readers import locate
from rlhf.errors import ArtifactError, DataError
from rlhf.runs.record import flat


def require_same(folder: Path, wanted: StageConfig) -> None:
    """Raises ArtifactError, with every key, where a folder holds a run with other settings."""
    file = folder / "config.yaml"
    if file.is_file() and (different := differing(load_config(type(wanted), file), wanted)):
        raise ArtifactError(
            f"holds a run with other settings: {'; '.join(different)}",
            where=str(folder),
            fix="choose another --out, or remove that run",
        )


def require_same_inputs(folders: Iterable[Path]) -> None:
    """Raises ArtifactError, naming the run, where data or a model that one of these runs was made from has changed.

    Files are found by the paths in the manifests; a run without a manifest, and a file that is gone, are passed over.
    """
    data, models = cache(_data_hash), cache(_model_hash)
    for folder in folders:
        manifest = manifest_of(str(folder)) or {"data": [], "parents": {}}
        found = [(each, data(each["path"])) for each in manifest["data"]]
        found += [(each, models(each["path"])) for each in manifest["parents"].values()]
        for entry, now in found:
            if now and now != entry.get("sha256", now):
                raise ArtifactError(
                    f"was made from {entry['path']}, which has changed since",
                    where=str(folder),
                    fix="choose another --out, or remove that run",
                )


def _data_hash(path: str) -> str:
    try:
        return readers.sha256_of(locate(path))
    except DataError:
        return ""


def _model_hash(path: str) -> str:
    return files.sha256_of(Path(path)) if Path(path).is_dir() else ""


def differing(held: Section, asked: Section) -> list[str]:
    """`key = held, not asked` of every key with another value."""
    before, after = (flat(_numbered(each.model_dump(mode="json"))) for each in (held, asked))
    return [
        f"{key} = {shown(before.get(key))}, not {shown(after.get(key))}"
        for key in before | after
        if before.get(key) != after.get(key)
    ]


def _numbered(value: Any) -> Any:
    """Lists of groups of keys as mappings by index, so that a difference names the entry; sources stay lists."""
    if isinstance(value, dict):
        return {key: _numbered(each) for key, each in value.items()}
    groups = isinstance(value, list) and value and all(isinstance(each, dict) and "path" not in each for each in value)
    return {str(index): _numbered(each) for index, each in enumerate(value)} if groups else value
