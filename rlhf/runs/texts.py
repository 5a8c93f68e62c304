"""The sentences of `texts.yaml` by their dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from rlhf.html.words import Words, same


def text(name: str, /, **values: Any) -> Words:
    """A sentence in both languages, its fields filled; a value that is Words gives each text its own language."""
    return texts()[name].format(**values)


def named(kind: str, name: str) -> Words:
    """What a stage, a status or a judge is called; the bare name where it is not known."""
    return texts().get(f"{kind}.{name}", same(name))


@cache
def texts() -> dict[str, Words]:
    """Every sentence, its fields not filled."""
    return dict(_flat(yaml.safe_load((files("rlhf.runs") / "texts.yaml").read_text(encoding="utf-8"))))


def _flat(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Words]]:
    for name, entry in entries.items():
        if entry.keys() == {"ko", "en"}:
            yield f"{prefix}{name}", Words(**entry)
        else:
            yield from _flat(entry, f"{prefix}{name}.")
