"""Whether a folder that is continued was begun with the same settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.artifacts.changed_keys import shown
from rlhf.config.load import load_config
from rlhf.config.schema import StageConfig
from rlhf.config.sections import Section
from rlhf.errors import ArtifactError
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
