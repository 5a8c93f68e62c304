"""Which keys of a configuration are not at their default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rlhf.config.stages import STAGES

NO_SUCH_KEY = "(no such key)"
Row = dict[str, Any]


def changed_keys(config: Row, stage: str) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value, default) of every value that is not the stage's default."""
    yield from _changed(config, STAGES[stage].config().model_dump(mode="json"), "")


def _changed(config: Row, defaults: Row, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for name, value in config.items():
        key, default = f"{prefix}{name}", defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            yield from _changed(value, default, f"{key}.")
        elif name not in defaults:
            yield key, value, NO_SUCH_KEY
        elif value != default:
            yield key, value, default


def shown(value: Any) -> str:
    """A value in few characters: of data sources, their paths."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "path" in each for each in value):
        return ", ".join(str(each["path"]) for each in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
