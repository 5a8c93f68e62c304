"""What pydantic found wrong, as errors that name the place, what was expected and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlhf.config.keys import ConfigKey, key_table, lookup, nearest_key
from rlhf.config.schema import StageConfig
from rlhf.config.sections import Section
from rlhf.config.stages import STAGES
from rlhf.config.yaml_lines import Document, KeyOrigin, KeyPath, dotted, shown
from rlhf.errors import ConfigError

_OUT_OF_RANGE = {
    "finite_number",
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
    "too_short",
    "too_long",
}


def explain(model: type[Section], document: Document, error: ValidationError, *, complete: bool) -> list[ConfigError]:
    """One error for each wrong key, in pydantic's order.

    Rules over several keys are skipped where the document is not complete: the missing key may satisfy them.
    """
    table = key_table(model)
    found: dict[KeyPath, list[ConfigError]] = {}
    for detail in error.errors(include_url=False):
        path = _key_path(table, detail)
        if path in found:
            continue  # each option of a union reports the same key
        key = lookup(table, path)
        if detail["type"] == "extra_forbidden":
            found[path] = _unknown_keys(model, document, path, detail["input"])
        elif detail["type"] != "value_error" or (key is not None and not key.is_section):
            found[path] = [_wrong_value(table, document, path, detail)]
        elif complete:
            found[path] = [_keys_together(table, document, _message(detail), path)]
    return [problem for problems in found.values() for problem in problems]


def _key_path(table: dict[str, ConfigKey], detail: ErrorDetails) -> KeyPath:
    """The key an error is about: pydantic's location without the option of a union it tried."""
    path: KeyPath = ()
    for part in detail["loc"]:
        if lookup(table, (*path, part)) is None:
            break
        path = (*path, part)
    return detail["loc"] if detail["type"] == "extra_forbidden" else path


def _origins_of(document: Document, path: KeyPath) -> list[tuple[KeyPath, KeyOrigin]]:
    """Who set a key: itself, else the keys below it (an override made the group), else what holds it."""
    below = [(key, origin) for key, origin in document.origins.items() if key[: len(path)] == path]
    if path and below:
        shallowest = min(len(key) for key, _ in below)
        return [(key, origin) for key, origin in below if len(key) == shallowest]
    above = [path[:length] for length in range(len(path) - 1, 0, -1) if path[:length] in document.origins]
    return [(above[0], document.origins[above[0]])] if above else []


def _where(document: Document, path: KeyPath) -> str:
    origins = _origins_of(document, path)
    return ", ".join(origin.of(dotted(key)) for key, origin in origins) or f"default  {dotted(path)}"


def _unknown_keys(model: type[Section], document: Document, path: KeyPath, given: Any) -> list[ConfigError]:
    users = [stage.name for stage in STAGES.values() if lookup(key_table(stage.config), path) is not None]
    if users and issubclass(model, StageConfig):
        own = next((stage.name for stage in STAGES.values() if stage.config is model), "this")
        problem, expected = f"stage {own} does not use this key", f"it in stage {one_of(users)} only"
        origins = _origins_of(document, path)
        return [
            ConfigError(problem, where=origin.of(dotted(key)), expected=expected, fix="remove it")
            for key, origin in origins
        ]
    table = key_table(model)
    return [
        _unknown_key(table, key, origin, given if key == path else None) for key, origin in _origins_of(document, path)
    ]


def one_of(names: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _unknown_key(table: dict[str, ConfigKey], path: KeyPath, origin: KeyOrigin, given: Any) -> ConfigError:
    above = path[:-1]
    while above and lookup(table, above) is None:
        above = above[:-1]
    parent = lookup(table, above)
    section = parent.name if parent else ""
    siblings = [key.leaf for key in table.values() if key.section == section]
    near = nearest_key(table, path, given if isinstance(given, dict) else ())
    return ConfigError(
        "no such key",
        where=origin.of(dotted(path)),
        expected=f"a key of {dotted(above)}: {', '.join(siblings)}" if above else f"one of {', '.join(siblings)}",
        fix=f"did you mean {near}?" if near else "remove it; --help lists every key",
    )


def _wrong_value(table: dict[str, ConfigKey], document: Document, path: KeyPath, detail: ErrorDetails) -> ConfigError:
    key = lookup(table, path)
    assert key is not None, f"pydantic reported {detail['loc']}, which the key table lacks"
    kind, given = detail["type"], detail["input"]
    if kind == "missing":
        fix = f"add {dotted(path)}"
        return ConfigError(
            f"{key.leaf} is missing",
            where=_where(document, path[:-1]),
            expected=f"{dotted(path)}: {key.expected}",
            fix=fix,
        )
    if kind == "value_error":
        problem = _message(detail)
    elif kind in _OUT_OF_RANGE:
        problem = "out of range"
    elif kind == "literal_error" and not isinstance(given, dict | list):
        problem = "not one of the values allowed"
    else:
        problem = "not of the type expected"
    return ConfigError(problem, where=_where(document, path), expected=key.expected, fix=_fix(key, dotted(path), given))


def _fix(key: ConfigKey, name: str, given: Any) -> str:
    choices = key.words.removeprefix("one of ").split(", ") if key.words.startswith("one of ") else []
    default = "" if key.default is None else f"; the default is {key.default}"
    near = difflib.get_close_matches(str(given), choices, n=1)
    if near:
        return f"did you mean {near[0]}?"
    if isinstance(given, bool | int | float) and re.search(r"\btext\b", key.words):
        return f"put it in quotes in YAML, on the command line {name}='\"{shown(given)}\"'"
    if isinstance(given, str) and re.search("number|true or false", key.words):
        return f"write {key.words}, without quotes{default}"
    return f"change {name}{default}"


def _message(detail: ErrorDetails) -> str:
    return str(detail["ctx"]["error"]) if "error" in detail.get("ctx", {}) else detail["msg"]


def _keys_together(table: dict[str, ConfigKey], document: Document, message: str, section: KeyPath) -> ConfigError:
    """A rule over several keys. Its message names them; the part after the last semicolon is the fix.

    A section that stands in several places names its keys without itself: they are completed where a value follows.
    """
    own = {word: f"{dotted(section)}.{word}" for word in re.findall(r"[a-z_0-9]+", message) if section}
    own = {word: name for word, name in own.items() if name in table}
    message = re.sub(r"(?<![\w.])[a-z_0-9]+(?= ?= ?)", lambda found: own.get(found[0], found[0]), message)
    named = dict.fromkeys([*re.findall(r"[a-z_0-9]+(?:\.[a-z_0-9]+)+", message), *own.values()])
    places = [
        document.origins[path].of(name)
        for name in named
        if name in table and (path := tuple(name.split("."))) in document.origins
    ]
    problem, _, fix = message.rpartition("; ")
    return ConfigError(problem or fix, where=", ".join(places), fix=fix if problem else "change one of the keys named")
