"""Every key of a stage: name, what it accepts in words, default; and the key nearest to a misspelt one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from rlhf.config.sections import Section
from rlhf.config.yaml_lines import KeyPath, dotted

INDEX = "N"
_NUMBERS = {"integer": "a whole number", "number": "a number"}
_WORDS = {"string": "text", "boolean": "true or false", "null": "null", "object": "a group of keys"}
_LIMITS = [
    ("exclusiveMinimum", "above"),
    ("minimum", "at least"),
    ("exclusiveMaximum", "below"),
    ("maximum", "at most"),
]


@dataclass(frozen=True)
class ConfigKey:
    """A key by its dotted name, where `N` stands for an index: `data.train.N.path`."""

    name: str
    words: str
    default: str | None
    description: str
    is_section: bool

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def section(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def expected(self) -> str:
        """Type and range, then the meaning."""
        return f"{self.words}; {self.description}" if self.description else self.words


@cache
def key_table(model: type[Section]) -> dict[str, ConfigKey]:
    """Every key of a configuration by its dotted name, as declared, each section before the keys in it."""
    schema = model.model_json_schema(mode="serialization")  # without the other forms a value may be given in
    return {key.name: key for key in _keys_of(schema, "", {}, schema.get("$defs", {}))}


def _keys_of(section: dict[str, Any], prefix: str, above: Any, defs: dict[str, Any]) -> Iterable[ConfigKey]:
    """Keys of one section; `above` holds the defaults its parent gives it, which win over its own."""
    for name, node in section["properties"].items():
        path = f"{prefix}.{name}" if prefix else name
        default = _default(name, node, section, above)
        inner, is_list = _inner_section(node, defs)
        words = _words(node, defs)
        text = None if default is _REQUIRED else json.dumps(default, ensure_ascii=False)
        description = node.get("description") or (inner or {}).get("description", "")
        yield ConfigKey(path, words, text, description, inner is not None and not is_list)
        if inner is not None and is_list:
            path = f"{path}.{INDEX}"
            yield ConfigKey(path, _group(inner), None, inner.get("description", ""), True)
        if inner is not None:
            yield from _keys_of(inner, path, default if isinstance(default, dict) else {}, defs)


_REQUIRED = object()


def _default(name: str, node: dict[str, Any], section: dict[str, Any], above: Any) -> Any:
    if name in above:
        return above[name]
    if name in section.get("required", ()):
        return _REQUIRED
    return node.get("default", [] if node.get("type") == "array" else {})


def _inner_section(node: dict[str, Any], defs: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """The section a key holds, and whether it holds a list of them."""
    if "$ref" in node:
        section: dict[str, Any] = defs[node["$ref"].rpartition("/")[2]]
        return section, False
    for option in node.get("anyOf", ()):
        inner, is_list = _inner_section(option, defs)
        if inner is not None:
            return inner, is_list
    if node.get("type") == "array":
        return _inner_section(node["items"], defs)[0], True
    return None, False


def _group(section: dict[str, Any]) -> str:
    return f"a group of keys ({', '.join(section['properties'])})"


def _words(node: dict[str, Any], defs: dict[str, Any]) -> str:
    if "$ref" in node:
        return _group(defs[node["$ref"].rpartition("/")[2]])
    if "anyOf" in node:
        return " or ".join(_words(option, defs) for option in node["anyOf"])
    choices = node.get("enum", [node["const"]] if "const" in node else [])
    if choices:
        return ("one of " if len(choices) > 1 else "") + ", ".join(str(choice) for choice in choices)
    kind = node.get("type", "")
    if kind == "array":
        return f"a list (each entry: {_words(node['items'], defs)})"
    return f"{_NUMBERS[kind]} {_limits(node)}".rstrip() if kind in _NUMBERS else _WORDS.get(kind, "any value")


def _limits(node: dict[str, Any]) -> str:
    if "minimum" in node and "maximum" in node:
        return f"from {_plain(node['minimum'])} to {_plain(node['maximum'])}"
    return " and ".join(f"{word} {_plain(node[limit])}" for limit, word in _LIMITS if limit in node)


def _plain(limit: float) -> str:
    return str(int(limit)) if float(limit).is_integer() else str(limit)


def lookup(table: dict[str, ConfigKey], path: KeyPath) -> ConfigKey | None:
    """The key at a path, whatever its indices."""
    return table.get(dotted(tuple(INDEX if isinstance(part, int) else part for part in path)))


def nearest_key(table: dict[str, ConfigKey], path: KeyPath, children: Iterable[str] = ()) -> str | None:
    """The real key most likely meant by one that does not exist; `a or b` where two are as likely.

    Tried in turn: the same last part in another section; the closest spelling; a section that holds most of
    `children` (the keys given below it); a description that has the words of the last part.
    """
    wanted = dotted(tuple(INDEX if isinstance(part, int) else part for part in path))
    keys = [key for key in table.values() if key.leaf != INDEX and not wanted.startswith(f"{key.name}.")]
    leaf = wanted.rpartition(".")[2]
    words = leaf.replace("_", " ").replace("-", " ").lower()
    best = max(keys, key=lambda key: _closeness(wanted, key))
    candidates = [key.name for key in keys if key.leaf == leaf]
    if not candidates and _closeness(wanted, best) >= 0.7:
        candidates = [best.name]
    if not candidates:
        held = {key.name: sum(f"{key.name}.{child}" in table for child in children) for key in keys}
        most = max(held.values())
        candidates = [name for name, count in held.items() if count == most > 0]
    if not candidates and len(words) > 3:
        candidates = [key.name for key in keys if words in key.description.lower() and not key.is_section]
    likeness = {name: _alike(wanted, name) for name in candidates}
    likely = [name for name in candidates if likeness[name] > max(likeness.values()) - 0.15]
    likely.sort(key=lambda name: -likeness[name])
    return " or ".join(_with_indices(name, path) for name in likely[:2]) or None


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _closeness(wanted: str, key: ConfigKey) -> float:
    """Likeness of the full names, or of the last parts alone for a key put in no or another section."""
    return max(_alike(wanted, key.name), 0.95 * _alike(wanted.rpartition(".")[2], key.leaf))


def _with_indices(name: str, path: KeyPath) -> str:
    """Puts the indices of the path back for the `N`s of a name, as far as they go."""
    for part in path:
        if isinstance(part, int):
            name = name.replace(f".{INDEX}", f".{part}", 1)
    return name.replace(f".{INDEX}", ".0")
