"""The texts of a data row, whatever its format: what is asked, what is answered, what is learnt from it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.data.formats import parse, sniff
from rlhf.data.readers import NumberedRow, Row
from rlhf.data.records import Demonstration, Message, Ranking
from rlhf.errors import DataError

# Keys that hold what people and models said; what is below them is text, but for the roles of messages.
TEXT_KEYS = frozenset(
    {
        "prompt",
        "response",
        "completion",
        "instruction",
        "input",
        "output",
        "chosen",
        "rejected",
        "responses",
        "messages",
    }
)


@dataclass(frozen=True, slots=True)
class RowTexts:
    """Texts of one row, NFC.

    Attributes:
        prompt: all turns before the answer, without the system's, joined by newlines.
        asked: the last user turn with its input.
        answers: the final answer, or all ranked ones; none of a prompt.
        learnt: what a model would learn to say: the assistant's turns, or the best ranked answers.
    """

    prompt: str
    asked: str
    answers: tuple[str, ...] = ()
    learnt: tuple[str, ...] = ()


def row_texts(row: Row) -> RowTexts:
    """The texts of a row. Raises DataError, with the key, for a row of no known format or with bad values."""
    record = parse(row, sniff(row), "")
    if isinstance(record, Ranking):
        best = tuple(
            text for text, rank in zip(record.responses, record.ranks, strict=True) if rank == min(record.ranks)
        )
        return _texts(record.prompt, record.responses, best)
    if isinstance(record, Demonstration):
        said = tuple(message.content for message in record.messages if message.role == "assistant")
        return _texts(record.messages[:-1], said[-1:], said)
    return _texts(record.messages, (), ())


def _texts(turns: Iterable[Message], answers: tuple[str, ...], learnt: tuple[str, ...]) -> RowTexts:
    spoken = [message for message in turns if message.role != "system"]
    said = [f"{message.content}\n{message.input}".strip() for message in spoken]
    return RowTexts("\n".join(said), said[-1], answers, learnt)


def normalised(text: str) -> str:
    """NFC, runs of whitespace as one space, none outside: equal texts are the same question."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def good_texts(row: Row | DataError, where: str) -> RowTexts:
    """The texts of a row as it was read; a bad one raises DataError with file, line, key and a fix."""
    try:
        if isinstance(row, DataError):
            raise row
        return row_texts(row)
    except DataError as error:
        place = f"{where}  {error.where}" if error.where.startswith("key ") else where
        fix = error.fix or "mend the row, or leave bad rows out with --on-bad-row skip"
        raise DataError(error.problem, where=place, expected=error.expected, fix=fix) from None


def numbered_texts(
    rows: Iterable[NumberedRow], path: str, on_bad_row: str
) -> Iterator[tuple[Row | DataError, RowTexts | DataError]]:
    """Each row with its texts, or with the error it is where `on_bad_row` is "skip"; "error" raises the first."""
    for line, row in rows:
        try:
            yield row, good_texts(row, f"{path}:{line}")
        except DataError as error:
            if on_bad_row == "error":
                raise
            yield row, error


def spoken_strings(row: Mapping[str, Any]) -> Iterator[str]:
    """Every string under the keys that hold texts, in the row's order."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    with_texts_changed(row, note)
    return iter(found)


def with_texts_changed(row: Mapping[str, Any], change: Callable[[str], str]) -> Row:
    """The row with `change` done to every string under the keys that hold texts; all else as it was."""
    return {key: _changed(value, change) if key in TEXT_KEYS else value for key, value in row.items()}


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    if isinstance(value, dict):
        return {key: item if key == "role" else _changed(item, change) for key, item in value.items()}
    return value
