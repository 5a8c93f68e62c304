"""The prompts of `rlhf/curate/augment/texts`, filled in, and the schemas of the JSON replies."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template
from typing import Any, Literal

import yaml

from rlhf.curate.endpoint.messages import ChatMessage, json_schema_format

Structured = Literal["schema", "object", "prompt"]
_TYPES: dict[type, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    list: {"type": "array", "items": {"type": "string"}},
}


@cache
def prompt_texts(name: str) -> Mapping[str, Any]:
    """The prompts of one file, by their names."""
    source = resources.files("rlhf.curate.augment") / "texts" / f"{name}.yaml"
    loaded: Mapping[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return loaded


def messages(system: str, user: str, **values: object) -> tuple[ChatMessage, ...]:
    """A system turn and a user turn, in which `$names` are replaced by the values (inserted literally)."""
    return (
        {"role": "system", "content": system},
        {"role": "user", "content": Template(user).substitute(values)},
    )


@dataclass(frozen=True, slots=True)
class ReplySchema:
    """The JSON object that a reply must be: its keys in order, and the type of each (str, bool, list of str)."""

    name: str
    keys: Mapping[str, type]

    def response_format(self, structured: Structured) -> dict[str, Any] | None:
        """The `response_format` of a request: the schema, JSON mode, or None to rely on the prompt alone."""
        if structured == "prompt":
            return None
        if structured == "object":
            return {"type": "json_object"}
        properties = {key: _TYPES[kind] for key, kind in self.keys.items()}
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(self.keys),
            "additionalProperties": False,
        }
        return json_schema_format(self.name, schema)

    def read(self, text: str) -> dict[str, Any] | None:
        """The object in a reply, texts stripped and NFC; None where a key is missing or of another type."""
        value = _object_in(text) or {}
        if any(not isinstance(value.get(key), kind) for key, kind in self.keys.items()):
            return None
        if any(
            isinstance(value[key], list) and not all(isinstance(item, str) for item in value[key]) for key in self.keys
        ):
            return None
        return {key: _clean(value[key]) for key in self.keys}


def _object_in(text: str) -> dict[str, Any] | None:
    # Without a schema, models put code fences or a sentence around the object.
    found = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        value = json.loads(found[0]) if found else None
    except (json.JSONDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return clean_text(value) if isinstance(value, str) else value


def clean_text(text: str) -> str:
    """Text in NFC, without outer whitespace."""
    return unicodedata.normalize("NFC", text.strip())
