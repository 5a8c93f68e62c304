"""The texts of a data row of any format: the prompt, the answers, and what a model would learn to say."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.data.formats import parse, sniff
from rlhf.data.readers import NumberedRow, Row, usable
from rlhf.data.records import Demonstration, Ranking
from rlhf.data.sources import placed
from rlhf.errors import DataError

# Keys whose values are text, or hold text at any depth (apart from the roles of messages).
TEXT_KEYS = frozenset(("prompt", "messages", "instruction", "input", "output", "response", "completion"))
TEXT_KEYS |= {"responses", "chosen", "rejected"}
_NO_TEXT = ("role", "id", "type", "tool_call_id", "tools")


@dataclass(frozen=True, slots=True)
class RowTexts:
    """Texts of one row, NFC.

    Attributes:
        prompt: all turns before the answer but the system's, joined by newlines.
        asked: the last user turn with its input.
        answers: the final answer, or all ranked answers; empty for a prompt.
        learnt: what a model would learn to say: the assistant's turns, or the best ranked answers.
    """

    prompt: str
    asked: str
    answers: tuple[str, ...] = ()
    learnt: tuple[str, ...] = ()


def row_texts(row: Row) -> RowTexts:
    """The texts of a row. Raises DataError, with the key, for a row of no known format or with bad values."""
    record = parse(row, sniff(row), "")
    learnt: tuple[str, ...] = ()
    if isinstance(record, Ranking):
        best = min(record.ranks)
        learnt = tuple(text for text, rank in zip(record.responses, record.ranks, strict=True) if rank == best)
    elif isinstance(record, Demonstration):
        learnt = tuple(turn.content for turn in record.messages if turn.role == "assistant" and turn.content)
    turns = [f"{turn.content}\n{turn.input}".strip() for turn in record.prompt if turn.role != "system"]
    return RowTexts("\n".join(turns), turns[-1], record.answers, learnt)


def normalised(text: str) -> str:
    """NFC, each run of whitespace as one space, none at the ends: texts equal in this form are the same question."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def compact(text: str) -> str:
    """A text without its whitespace."""
    return "".join(text.split())


def numbered_texts(
    rows: Iterable[NumberedRow], path: str, on_bad_row: str
) -> Iterator[tuple[Row | DataError, RowTexts | DataError]]:
    """Each row with its texts, or with its error where `on_bad_row` is "skip"; "error" raises the first error."""
    for line, row in rows:
        try:
            yield row, row_texts(usable(row))
        except DataError as error:
            problem = placed(error, f"{path}:{line}", fix="correct the row, or skip bad rows with --on-bad-row skip")
            if on_bad_row == "error":
                raise problem from None
            yield row, problem


def texts_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, text) of every text of a row, in its order; a key reads `messages[0].content`."""
    for key, value in row.items():
        if key in TEXT_KEYS:
            yield from _texts(key, value)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(f"{name}[{index}]", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _NO_TEXT:
                yield from _texts(f"{name}.{key}", item)


def with_texts_changed(row: Mapping[str, Any], change: Callable[[str], str]) -> Row:
    """The row with `change` applied to every text of `texts_of`; everything else stays."""
    return {key: _changed(value, change) if key in TEXT_KEYS else value for key, value in row.items()}


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    if isinstance(value, dict):
        return {key: item if key in _NO_TEXT else _changed(item, change) for key, item in value.items()}
    return value
