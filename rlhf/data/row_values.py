"""The values of a row: text, lists and messages under a key, as every converter reads them.

Texts lose outer whitespace and become NFC here; nothing else changes. Errors name the key of the row, as in
"key `responses[2]`"; the caller adds file and line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from rlhf.data.records import Message, Role, check_text, check_turns
from rlhf.data.tool_turns import CALL_KEYS, calls_text, tools_text
from rlhf.errors import DataError

Row = Mapping[str, Any]
MISSING = "is missing"
MESSAGE_KEYS = ("role", "content", "input", "weight", "loss", "training", *CALL_KEYS)  # that `messages_at` reads


def encodable(text: str) -> bool:
    """Whether a text is without half a surrogate pair, which UTF-8 and tokenizers do not know."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def quoted_keys(row: Row) -> str:
    return ", ".join(f"`{key}`" for key in row) or "no keys"


def key_of(error: DataError) -> str:
    """The key an error names, as in "key `responses[2]`"; "" where it names something else or nothing."""
    return error.where if error.where.startswith("key ") else ""


def reason_of(error: DataError) -> str:
    """An error's key and problem without what differs from row to row, so that rows are counted by it."""
    key = re.sub(r"\[\d+\]", "[]", key_of(error))
    problem = error.problem.partition(";")[0].partition(": ")[0]
    return f"{key} {re.sub(r'0x[0-9a-f]{2} |(?<= of )[0-9]+$|^[0-9]+ ', '', problem)}".strip()


@contextmanager
def at_key(key: str) -> Iterator[None]:
    """Adds the key to an error without a place."""
    try:
        yield
    except DataError as error:
        if error.where:
            raise
        where = f"key `{key}`"
        raise DataError(error.problem, where=where, expected=error.expected, fix=error.fix) from None


def text_at(row: Row, key: str, *, name: str = "", allow_empty: bool = False) -> str:
    """The text under `key`, stripped and NFC; `name` is the key in errors, e.g. `messages[2].content`."""
    with at_key(name or key):
        value = value_at(row, key)
        if not isinstance(value, str):
            raise DataError(f"is {type_of(value)}, not text", expected="a string")
        text = unicodedata.normalize("NFC", value.strip())
        if not allow_empty:
            check_text(text, "the text")
        if not encodable(text):
            raise DataError("half a surrogate pair, which no tokenizer can encode", fix="write the row again")
        return text


def value_at(row: Row, key: str) -> Any:
    if key in row:
        return row[key]
    raise DataError(f"{MISSING}; the row has {quoted_keys(row)}")


def list_at(row: Row, key: str) -> list[Any]:
    value = value_at(row, key)
    if not isinstance(value, list):
        raise DataError(f"is {type_of(value)}, not a list", expected="a list")
    return value


def type_of(value: object) -> str:
    return "null" if value is None else type(value).__name__


def messages_at(row: Row, key: str, last: Role | None = None) -> tuple[Message, ...]:
    """The message list under `key`, which must end in a turn by `last` if that is given."""
    with at_key(key):
        entries = list_at(row, key)
        turns = tuple(_message(entry, f"{key}[{index}]") for index, entry in enumerate(entries))
        if last is not None:
            check_turns(turns, last)
    return turns


def _message(entry: object, name: str) -> Message:
    with at_key(name):
        if not isinstance(entry, dict):
            raise DataError(f"is {type_of(entry)}, not a message", expected="{role, content}")
        role = text_at(entry, "role", name=f"{name}.role")
        calls = calls_text(entry)
        silent = calls and not entry.get("content")
        content = "" if silent else text_at(entry, "content", name=f"{name}.content")
        learn = role != "assistant" or learnt_at(entry, name)
        given = optional_text(entry, "input", f"{name}.input")
        if role != "tool":
            return Message(cast(Role, role), content, given, learn, calls, tools_text(entry))
        answered, function = (optional_text(entry, key, f"{name}.{key}") for key in ("tool_call_id", "name"))
        return Message("tool", content, given, call_id=answered, name=function)


def learnt_at(entry: Row, name: str) -> bool:
    """Whether a turn is learnt: hosted fine-tuning's `weight` 0 or 1, ms-swift's `loss`, axolotl's `training`.

    Raises: DataError for any other value, such as a weight of 0.5.
    """
    wanted = {}
    for key in ("weight", "loss", "training"):
        value = entry.get(key)
        if value is None:
            continue
        with at_key(f"{name}.{key}"):
            if value not in (0, 1):
                raise DataError(f"is {value!r}", expected="0 (the turn is not learnt) or 1")
        wanted[key] = bool(value)
    if len(set(wanted.values())) > 1:
        raise DataError(f"{' and '.join(wanted)} contradict each other", where=f"key `{name}`")
    return all(wanted.values())


def optional_text(row: Row, key: str, name: str = "") -> str:
    return "" if row.get(key) is None else text_at(row, key, name=name, allow_empty=True)
