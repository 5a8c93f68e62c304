"""What a converter reads of a row, and what becomes of the keys that it does not read.

A converter declares the keys that it reads as paths: `prompt`, `messages[].content`, `input.messages[].role`. A path
without any path below it stands for the whole value. Of the keys it leaves out, some are harmless by their name, some
change what the row means, which is an error, and all others are counted, so that nothing is lost without a word.
`row_keys.yaml` holds the names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any

import yaml

from rlhf.errors import DataError

Tree = dict[str, Any]  # name of a key, or "[]" for the elements of a list -> tree of what is read below; {}: all of it
NUM_SHOWN = 8


def _names() -> tuple[frozenset[str], dict[str, str]]:
    text = (resources.files("rlhf.data") / "row_keys.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    meaning = {}
    for meant, names in content["meaning"].items():
        for name in chain.from_iterable(each if isinstance(each, list) else [each] for each in names):
            meaning[name] = meant
    return frozenset(chain.from_iterable(content["harmless"])), meaning


HARMLESS, MEANING = _names()


@cache
def _tree(paths: frozenset[str]) -> Tree:
    root: Tree = {}
    for path in paths:
        here = root
        for name in path.replace("[]", ".[]").split("."):
            here = here.setdefault(name, {})
    return root


def unread(row: Mapping[str, Any], reads: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """(path, value) of every key of `row` that is neither in `reads`, nor harmless, nor empty.

    A path reads `messages[].weight`: elements of a list are not told apart.
    """
    return _unread(row, _tree(reads), "")


def _unread(value: Mapping[str, Any], read: Tree, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        path = f"{prefix}{key}"
        below = read.get(key)
        if below is None:
            if key not in HARMLESS and inner not in (None, "", [], {}):
                yield path, inner
        elif below:
            yield from _inside(inner, below, path)


def _inside(value: object, read: Tree, path: str) -> Iterator[tuple[str, Any]]:
    """What is not read of a value of which a part is read."""
    if isinstance(value, dict):
        yield from _unread(value, read, f"{path}.")
    elif isinstance(value, list) and "[]" in read:
        for item in value:
            yield from _inside(item, read["[]"], f"{path}[]")


def check_unread(
    row: Mapping[str, Any],
    reads: frozenset[str],
    reader: str,
    *,
    ignore: Collection[str] = (),
    counts: dict[str, int] | None = None,
    fix: str = "",
) -> None:
    """Counts the unread keys of a row in `counts`.

    Args:
        row: one row of a file.
        reads: paths that the converter reads.
        reader: the converter, for the error.
        ignore: names of keys that may be left out although they change the meaning of a row.
        counts: gets one more for each unread path of this row.
        fix: what to do about a key that changes the meaning.

    Raises:
        DataError: for an unread key that changes what the row means.
    """
    seen = set()
    for path, _ in unread(row, reads):
        name = path.rpartition(".")[2]
        if name in MEANING and name not in ignore:
            raise DataError(
                f"{_as_clause(MEANING[name])}, which {reader} does not read",
                where=f"key `{path}`",
                fix=fix or f"drop the key where it does not matter, or ignore it by name: ignore: [{name}]",
            )
        seen.add(path)
    if counts is not None:
        for path in seen:
            counts[path] = counts.get(path, 0) + 1


def _as_clause(meant: str) -> str:
    says = meant.startswith(("how", "whether", "which", "what"))
    return f"says {meant}" if says else f"holds {meant}"


def unread_summary(counts: Mapping[str, int]) -> str:
    """The unread keys with the number of rows that have them, the most frequent first; "" without any."""
    if not counts:
        return ""
    ordered = Counter(counts).most_common()
    shown = ", ".join(f"{path} ({number:,} rows)" for path, number in ordered[:NUM_SHOWN])
    more = f", and {len(ordered) - NUM_SHOWN} more" if len(ordered) > NUM_SHOWN else ""
    return f"keys not read: {shown}{more}"


def below(key: str, names: Iterable[str]) -> frozenset[str]:
    """The paths of `names` in the messages of a list under `key`."""
    return frozenset(f"{key}[].{name}" for name in names)
