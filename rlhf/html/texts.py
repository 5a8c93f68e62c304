"""The sentences that a package's code chooses, in Korean and English, from its `texts.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.resources import files
from typing import Any

import yaml

from rlhf.html.words import Words, same


class Texts:
    """The sentences of a package by their dotted names."""

    def __init__(self, package: str) -> None:
        self.package = package

    @cached_property
    def all(self) -> dict[str, Words]:
        """Every sentence, its fields not filled."""
        return dict(_flat(yaml.safe_load((files(self.package) / "texts.yaml").read_text(encoding="utf-8"))))

    def __call__(self, name: str, /, **values: Any) -> Words:
        """A sentence with its fields filled; a value that is Words gives each text its own language."""
        return self.all[name].format(**values)

    def named(self, kind: str, name: str) -> Words:
        """What a stage, a status or a judge is called; the bare name where it is not known."""
        return self.all.get(f"{kind}.{name}", same(name))


def _flat(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Words]]:
    for name, entry in entries.items():
        if entry.keys() == {"ko", "en"}:
            yield f"{prefix}{name}", Words(**entry)
        else:
            yield from _flat(entry, f"{prefix}{name}.")
