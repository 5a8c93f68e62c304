"""The layers of a configuration, lowest first: `base` files, the file itself, `key=value` overrides."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf.config.shipped import PREFIX, config_file
from rlhf.config.yaml_lines import Document, KeyOrigin, KeyPath, dotted, entry, read
from rlhf.errors import ConfigError

COMMAND_LINE = "command line"
FORM = "key=value, such as train.lr=1e-5 or data.train=[a.jsonl,b.jsonl]"
_KEY = re.compile(r"\w[\w-]*(\.[\w-]+)*")


@dataclass(frozen=True)
class Override:
    """One `key=value` of the command line."""

    parts: tuple[str, ...]
    text: str
    value: Any
    origins: dict[KeyPath, KeyOrigin]

    def problem(self, problem: str, expected: str, fix: str) -> ConfigError:
        """An error about this override."""
        where = KeyOrigin(COMMAND_LINE, self.text).of(dotted(self.parts))
        return ConfigError(problem, where=where, expected=expected, fix=fix)


def read_files(path: Path, problems: list[ConfigError], chain: tuple[Path, ...] = (), asked: str = "") -> Document:
    """Reads a file over its `base` files, recursively; the later of two bases wins, the file wins over both.

    What cannot be read is added to `problems` and skipped.
    """
    shown_path = os.path.normpath(path)
    names = [os.path.normpath(link) for link in (*chain, path)]
    if path.resolve() in [link.resolve() for link in chain]:
        fix = "remove one `base` of the chain"
        problems.append(
            ConfigError(f"base files form a cycle: {' -> '.join(names)}", where=asked, expected="no cycle", fix=fix)
        )
        return Document(complete=False)
    try:
        own = _read_file(path, asked, problems)
        bases = _bases(own, shown_path)
    except ConfigError as error:
        problems.append(error)
        return Document(complete=False)
    merged = Document()
    for base, where in bases:
        _lay_over(merged, _read_base(path, base, where, problems, chain))
    _lay_over(merged, own)
    return merged


def _read_base(path: Path, base: str, where: str, problems: list[ConfigError], chain: tuple[Path, ...]) -> Document:
    """What `path` names as its base: a file looked up beside it, or a recipe."""
    try:
        found = config_file(base, where) if base.startswith(PREFIX) else path.parent / base
    except ConfigError as error:
        problems.append(error)
        return Document(complete=False)
    return read_files(found, problems, (*chain, path), where)


def _lay_over(under: Document, over: Document) -> None:
    for name, value in over.values.items():
        under.put(under.values, (name,), value, over.origins)
    under.complete = under.complete and over.complete


def _read_file(path: Path, asked: str, problems: list[ConfigError]) -> Document:
    name = os.path.normpath(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            "not UTF-8",
            where=f"{name}:{line}",
            expected="UTF-8 text",
            fix="save the file as UTF-8, not CP949",
        ) from error
    except OSError as error:
        raise _unreadable(path, asked, error) from error
    values, origins, found = read(text, lambda line: f"{name}:{line}")
    problems.extend(found)
    if values is None:
        return Document()
    if not isinstance(values, dict):
        expected = "sections with keys, such as `train:` and below it `  lr: 1e-5`"
        problem, where = f"holds no keys but {origins[()].text}", origins[()].place
        raise ConfigError(problem, where=where, expected=expected, fix="put the value under its key")
    return Document(values, origins)


def _unreadable(path: Path, asked: str, error: OSError) -> ConfigError:
    name = os.path.normpath(path)
    if path.exists():
        return ConfigError(
            f"cannot read {name}: {error.strerror}",
            where=asked,
            expected="a readable YAML file",
            fix="name a YAML file",
        )
    near = _nearest_file(path)
    fix = f"did you mean {near}?" if near else "check the path; a `base` is looked up beside the file that names it"
    return ConfigError(f"no such file: {name}", where=asked, expected="an existing YAML file", fix=fix)


def _nearest_file(path: Path) -> str | None:
    """Follows the path folder by folder, taking the closest name wherever a part does not exist."""
    *folders, _ = parts = Path(os.path.normpath(path)).parts
    found = Path()
    for depth, part in enumerate(parts):
        if (found / part).exists():
            found /= part
            continue
        if not found.is_dir() or not os.access(found, os.R_OK):
            return None
        entries = sorted(
            item.name
            for item in found.iterdir()
            if (item.is_dir() if depth < len(folders) else item.suffix in (".yaml", ".yml"))
        )
        near = difflib.get_close_matches(part, entries, n=1, cutoff=0.5)
        if not near:
            return None
        found /= near[0]
    return str(found)


def _bases(own: Document, name: str) -> list[tuple[str, str]]:
    """Takes `base` out of a document; each base with the `where` that asked for it."""
    if "base" not in own.values:
        return []
    given, origin = own.values.pop("base"), own.origins[("base",)]
    items = given if isinstance(given, list) else [given]
    where = origin.of("base")
    if not all(isinstance(item, str) and item for item in items):
        raise ConfigError(
            "not a file name",
            where=where,
            expected="a YAML file, or a list of them",
            fix="write base: other.yaml",
        )
    places = [own.origins.get(("base", i), origin).place for i in range(len(items))]
    return [(item, KeyOrigin(place, f'"{item}"').of("base")) for item, place in zip(items, places, strict=True)]


def parse_override(argument: str) -> Override:
    """`key.sub=value`, the value read as YAML."""
    key, sign, text = argument.partition("=")
    where = f"{COMMAND_LINE}  {argument}"
    if not sign or not _KEY.fullmatch(key):
        fix = f"write {FORM}, without dashes or spaces around the key"
        raise ConfigError("not an override", where=where, expected="key=value", fix=fix)
    if not text.strip():
        fix = f"write {key}=null for none, or {key}='\"\"' for empty text"
        raise ConfigError("no value after =", where=where, expected=FORM, fix=fix)
    parts = tuple(key.split("."))
    try:
        value, origins, problems = read(text, lambda line: COMMAND_LINE, parts)
    except ConfigError as error:
        raise ConfigError(
            error.problem, where=where, expected=FORM, fix=f"quote the value: {key}='\"text\"'"
        ) from error
    if problems:
        raise ConfigError.collect(problems)
    origins[parts] = replace(origins[parts], text=text)
    return Override(parts, text, value, origins)


def apply_override(document: Document, override: Override) -> None:
    """Sets the key, making the groups above it that are null or absent; a mapping is merged into a mapping.

    Raises: ConfigError if a part above the key holds a single value, or names no entry of a list.
    """
    container: Any = document.values
    path: KeyPath = ()
    for depth, name in enumerate(override.parts):
        part = _part(container, path, name, override)
        path = (*path, part)
        if depth == len(override.parts) - 1:
            moved = {path + key[len(path) :]: origin for key, origin in override.origins.items()}
            document.put(container, path, override.value, moved)
            return
        child = entry(container, part)
        if child is None:
            if override.parts[depth + 1].isdecimal():
                raise _no_list(path, override)
            child = container[part] = {}
            document.forget(path)
        elif not isinstance(child, dict | list):
            raise _single_value(document, path, override)
        container = child


def _part(container: Any, path: KeyPath, name: str, override: Override) -> str | int:
    """A name as the key of a mapping or the index of a list."""
    if not isinstance(container, list):
        return name
    if name.isdecimal() and int(name) < len(container):
        return int(name)
    key = dotted(path)
    indices = f"an index from 0 to {len(container) - 1}" if container else "no index, as the list is empty"
    raise override.problem(
        f"{key} is a list without an entry {name}",
        f"{indices}, after {key}",
        f"set the whole list: {key}=[...]",
    )


def _no_list(path: KeyPath, override: Override) -> ConfigError:
    key, index = dotted(path), override.parts[len(path)]
    return override.problem(
        f"{key} is not set, so it has no entry {index}",
        f"a list at {key}, in a file or an earlier override",
        f"set the whole list: {key}=[...]",
    )


def _single_value(document: Document, path: KeyPath, override: Override) -> ConfigError:
    key = dotted(path)
    origin = document.origins[path]
    rest = override.parts[len(path) :]
    whole = "[...]" if rest[0].isdecimal() else "{...}"
    return override.problem(
        f"{key} holds the single value {origin.text} ({origin.place})",
        f"a group of keys or a list at {key}, as the key names something below it",
        f"remove .{dotted(rest)}, or set the whole: {key}={whole}",
    )
