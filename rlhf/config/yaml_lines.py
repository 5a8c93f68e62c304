"""YAML into plain values, with the place of every key, so that an error can name a file and a line.

Scalars follow YAML 1.2, not 1.1 as PyYAML's own: `1e-5` is a number; `on`, `no` and `2024-01-01` are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from rlhf.errors import ConfigError

KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_RESOLVERS = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+0123456789.")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
]
_FIX = "indent with spaces (YAML refuses tabs), close brackets and quotes, quote text that starts with @ % ` * &"


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser with the scalar rules above."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that either these rules or YAML 1.1 would read as something else."""


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _RESOLVERS:
    _whole = re.compile(rf"(?:{_pattern})\Z")  # PyYAML matches only the beginning
    _Loader.add_implicit_resolver(_TAG + _name, _whole, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _whole, _first)


@dataclass(frozen=True)
class KeyOrigin:
    """Where a key was set, such as `configs/my.yaml:14` or `command line`, and its value as written there."""

    place: str
    text: str

    def of(self, key: str) -> str:
        """The `where` of an error: place, key and value."""
        return f"{self.place}  {key} = {self.text}"


@dataclass
class Document:
    """Nested values and the origin of every key in them, list entries included.

    `complete` is False where a file could not be read, so that a key it may hold is not known.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, KeyOrigin] = field(default_factory=dict)
    complete: bool = True

    def put(self, container: Any, path: KeyPath, value: Any, origins: dict[KeyPath, KeyOrigin]) -> None:
        """Sets the last part of `path` in `container`; mappings are merged, anything else replaces."""
        name = path[-1]
        old = entry(container, name)
        if isinstance(value, dict) and isinstance(old, dict):
            self.origins[path] = origins[path]
            for child in value:
                self.put(old, (*path, child), value[child], origins)
            return
        self.forget(path)
        container[name] = value
        self.origins.update({key: origin for key, origin in origins.items() if key[: len(path)] == path})

    def forget(self, path: KeyPath) -> None:
        """Drops the origins of a key and all below it, before it is replaced."""
        self.origins = {key: origin for key, origin in self.origins.items() if key[: len(path)] != path}


def entry(container: Any, part: str | int) -> Any:
    """What a mapping or a list holds there; None for a key the mapping lacks."""
    return container.get(part) if isinstance(container, dict) else container[part]


def dotted(path: KeyPath) -> str:
    """`("data", "train", 0)` as `data.train.0`."""
    return ".".join(str(part) for part in path)


def shown(value: Any) -> str:
    """A value on one line, cut at 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def to_yaml(values: dict[str, Any]) -> str:
    """YAML that `read` turns back into equal values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def read(
    text: str, place: Callable[[int], str], path: KeyPath = ()
) -> tuple[Any, dict[KeyPath, KeyOrigin], list[ConfigError]]:
    """Parses one YAML document whose value belongs at `path`; `place` turns a line number into words.

    Returns the value, the origins of `path` and of every key below it, and the problems that leave it
    readable (a key given twice).
    Raises: ConfigError if it is not YAML.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise _not_yaml(error, place) from error
    finally:
        if loader is not None:
            loader.dispose()
    reader = _Reader(place)
    value = None if node is None else reader.value(node, path, 1)
    return value, reader.origins, reader.problems


def _not_yaml(error: yaml.YAMLError, place: Callable[[int], str]) -> ConfigError:
    where, problem = place(1), str(error).replace("\n", " ")
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        where, problem = place(error.problem_mark.line + 1), str(error.problem)
        if error.context_mark is not None and error.context_mark.line != error.problem_mark.line:
            problem += f" ({error.context}, begun on line {error.context_mark.line + 1})"
    return ConfigError(f"not valid YAML: {problem}", where=where, expected="`key: value` lines", fix=_FIX)


class _Reader:
    """Turns the nodes of one document into values, origins and problems."""

    def __init__(self, place: Callable[[int], str]) -> None:
        self.place = place
        self.origins: dict[KeyPath, KeyOrigin] = {}
        self.problems: list[ConfigError] = []
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: KeyPath, line: int) -> Any:
        if any(node is parent for parent in self._open):
            raise self._refused(node, path, "an alias inside its own anchor")
        self._open.append(node)
        value: Any
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            value = self._mapping(node, path)
            text = shown(value)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            value = [self.value(item, (*path, i), _line(item)) for i, item in enumerate(node.value)]
            text = shown(value)
        else:
            value = self._scalar(node, path)
            text = shown(value) if isinstance(value, str) else node.value or "null"
        self._open.pop()
        self.origins[path] = KeyOrigin(self.place(line), text)
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._refused(key_node, path, "a key that is not a word")
            name, line = key_node.value, _line(key_node)
            if name == "<<":
                raise self._refused(
                    key_node, path, "the merge key <<", fix="use `base: other.yaml`, or repeat the keys"
                )
            if name in lines:
                self.problems.append(self._twice((*path, name), lines[name], line))
            values[name], lines[name] = self.value(value_node, (*path, name), line), line
        return values

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if not isinstance(node, yaml.ScalarNode):
            raise self._refused(node, path, f"the YAML tag {node.tag}")
        try:
            if kind in ("str", "null"):
                return text if kind == "str" else None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return int(text)
            if kind == "float":
                return _number(text)
        except (ValueError, KeyError) as error:
            raise self._refused(node, path, f"{text!r} as {kind}") from error
        raise self._refused(node, path, f"the YAML tag {node.tag}")

    def _refused(self, node: yaml.Node, path: KeyPath, what: str, fix: str = "write it out plainly") -> ConfigError:
        where = f"{self.place(_line(node))}  {dotted(path)}".rstrip()
        expected = "words, numbers, true, false, null, lists and groups of keys"
        return ConfigError(f"{what} cannot be used here", where=where, expected=expected, fix=fix)

    def _twice(self, path: KeyPath, first: int, second: int) -> ConfigError:
        key = dotted(path)
        return ConfigError(
            f"given twice: {self.place(first)} and {self.place(second)}",
            where=f"{self.place(second)}  {key}",
            expected="each key once in a file",
            fix=f"join the two, or remove one {key}",
        )


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _number(text: str) -> float:
    """`1e5` is the whole number 100000, so it also fits a key that counts; `1e-5` and `1.0` are fractions."""
    number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return int(number) if "." not in text and number.is_integer() else number
