"""Row formats: the keys of a row, and the record that it becomes.

Texts lose outer whitespace and become NFC here; nothing else changes. Errors name the key of the row, as in
"key `responses[2]`"; the caller adds file and line.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from rlhf.data.records import (
    Demonstration,
    Message,
    Prompt,
    Ranking,
    Record,
    Role,
    check_ranks,
    check_responses,
    check_scores,
    check_text,
    check_turns,
)
from rlhf.errors import DataError

Row = Mapping[str, Any]

# Recognised in this order: the more specific keys first, `prompt` alone last.
FORMAT_KEYS: dict[str, str] = {
    "ranking": "prompt, responses, ranks or scores",
    "chosen-rejected": "chosen, rejected, prompt unless both are message lists",
    "prompt-response": "prompt, response",
    "prompt-completion": "prompt, completion",
    "instruction": "instruction, output, input if any",
    "messages": "messages [{role, content}]",
    "prompt": "prompt, or messages that end in a user turn",
}
_REQUIRED: dict[str, tuple[frozenset[str], ...]] = {
    "ranking": (frozenset({"prompt", "responses", "ranks"}), frozenset({"prompt", "responses", "scores"})),
    "chosen-rejected": (frozenset({"chosen", "rejected"}),),
    "prompt-response": (frozenset({"prompt", "response"}),),
    "prompt-completion": (frozenset({"prompt", "completion"}),),
    "instruction": (frozenset({"instruction", "output"}),),
    "messages": (frozenset({"messages"}),),
    "prompt": (frozenset({"prompt"}),),
}
_KNOWN_KEYS = frozenset[str]().union(*(keys for group in _REQUIRED.values() for keys in group))


def described(names: Iterable[str] = FORMAT_KEYS) -> str:
    """The formats with their keys, for error messages."""
    return "; ".join(f"{name} {{{FORMAT_KEYS[name]}}}" for name in names)


def quoted_keys(row: Row) -> str:
    """The keys of a row, for error messages."""
    return ", ".join(f"`{key}`" for key in row) or "no keys"


def rename_hint(row: Row, names: Iterable[str] = FORMAT_KEYS) -> str:
    """Which misspelt keys to rename so that the row has one of these formats, or ""."""
    strangers = [str(key) for key in row if key not in _KNOWN_KEYS]
    for keys in (keys for name in names for keys in _REQUIRED[name]):
        near = {key: difflib.get_close_matches(key, strangers, n=1, cutoff=0.75) for key in keys - set(row)}
        if near and all(near.values()):
            return "rename " + ", ".join(f"`{near[key][0]}` to `{key}`" for key in sorted(near))
    return ""


def sniff(row: Row) -> str:
    """The format of a row by its keys. Raises DataError, which lists all formats, when there is none."""
    present = frozenset(row)
    for name, alternatives in _REQUIRED.items():
        if any(keys <= present for keys in alternatives):
            return name
    problem = f"no known format has the keys {quoted_keys(row)}"
    raise DataError(problem, expected=described(), fix=rename_hint(row))


def parse(row: Row, format: str, source: str) -> Record:
    """The record of a row in `format`; a `source` key in the row takes precedence over `source`."""
    if row.get("source") is not None:
        source = text_at(row, "source", allow_empty=True) or source
    return _PARSERS[format](row, source)


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
        value = _value_at(row, key)
        if not isinstance(value, str):
            raise DataError(f"is {_type_of(value)}, not text", expected="a string")
        text = unicodedata.normalize("NFC", value.strip())
        if not allow_empty:
            check_text(text, "the text")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError("half a surrogate pair, which no tokenizer can encode", fix="write the row again")
        return text


def _value_at(row: Row, key: str) -> Any:
    if key in row:
        return row[key]
    raise DataError(f"is missing; the row has {quoted_keys(row)}", fix=rename_hint(row))


def _list_at(row: Row, key: str) -> list[Any]:
    value = _value_at(row, key)
    if not isinstance(value, list):
        raise DataError(f"is {_type_of(value)}, not a list", expected="a list")
    return value


def _type_of(value: object) -> str:
    return "null" if value is None else type(value).__name__


def messages_at(row: Row, key: str, last: Role | None = None) -> tuple[Message, ...]:
    """The message list under `key`, which must end in a turn by `last` if that is given."""
    with at_key(key):
        entries = _list_at(row, key)
        turns = tuple(_message(entry, f"{key}[{index}]") for index, entry in enumerate(entries))
        if last is not None:
            check_turns(turns, last)
    return turns


def _message(entry: object, name: str) -> Message:
    with at_key(name):
        if not isinstance(entry, dict):
            raise DataError(f"is {_type_of(entry)}, not a message", expected="{role, content}")
        role = text_at(entry, "role", name=f"{name}.role")
        content = text_at(entry, "content", name=f"{name}.content")
        return Message(cast(Role, role), content, _optional(entry, "input", f"{name}.input"))


def _optional(row: Row, key: str, name: str = "") -> str:
    return "" if row.get(key) is None else text_at(row, key, name=name, allow_empty=True)


def _prompt_turns(row: Row) -> tuple[Message, ...]:
    if isinstance(row.get("prompt"), list):
        return messages_at(row, "prompt", "user")
    return (Message("user", text_at(row, "prompt")),)


def _answered(answer_key: str) -> Callable[[Row, str], Record]:
    def parse_answered(row: Row, source: str) -> Record:
        answer = Message("assistant", text_at(row, answer_key))
        return Demonstration((*_prompt_turns(row), answer), source)

    return parse_answered


def _instruction(row: Row, source: str) -> Record:
    user = Message("user", text_at(row, "instruction"), _optional(row, "input"))
    return Demonstration((user, Message("assistant", text_at(row, "output"))), source)


def _messages(row: Row, source: str) -> Record:
    turns = messages_at(row, "messages")
    with at_key("messages"):
        if turns and turns[-1].role == "user":
            return Prompt(turns, source)
        return Demonstration(turns, source)


def _prompt(row: Row, source: str) -> Record:
    if "prompt" not in row and "messages" in row:
        return Prompt(messages_at(row, "messages", "user"), source)
    return Prompt(_prompt_turns(row), source)


def _ranking(row: Row, source: str) -> Record:
    prompt = _prompt_turns(row)
    with at_key("responses"):
        values = _list_at(row, "responses")
        texts = {f"responses[{index}]": value for index, value in enumerate(values)}
        responses = tuple(text_at(texts, name) for name in texts)
        check_responses(responses)
    scores = _numbers(row, "scores", len(responses)) if row.get("scores") is not None else None
    if "ranks" in row or scores is None:
        with at_key("ranks"):
            ranks = tuple(_list_at(row, "ranks"))
            check_ranks(ranks, len(responses))
    else:
        ascending = sorted(scores)
        ranks = tuple(1 + len(scores) - bisect_right(ascending, score) for score in scores)
    return Ranking(prompt, responses, ranks, source, scores)


def _numbers(row: Row, key: str, num_answers: int) -> tuple[float, ...]:
    with at_key(key):
        values = _list_at(row, key)
        check_scores(values, num_answers)
        return tuple(float(value) for value in values)


def _chosen_rejected(row: Row, source: str) -> Record:
    before_chosen, chosen = _ending(row, "chosen")
    before_rejected, rejected = _ending(row, "rejected")
    if before_chosen != before_rejected:
        problem = "starts with other turns than `chosen`"
        raise DataError(problem, where="key `rejected`", expected="lists that differ in the last turn only")
    prompt = before_chosen
    if row.get("prompt") is not None or not prompt:
        prompt = _agreeing(_prompt_turns(row), before_chosen)
    with at_key("chosen"):
        check_turns(prompt, "user")
    return Ranking(prompt, (chosen, rejected), (1, 2), source)


def _agreeing(prompt: tuple[Message, ...], before: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns before the answers, which are given twice: in `prompt` and at the start of `chosen`.

    Public data sets repeat the whole conversation in `chosen`, and its first or last question in `prompt`.
    """
    size = len(prompt)
    if before and prompt not in (before[:size], before[-size:]):
        problem = "is not in the turns that `chosen` starts with"
        raise DataError(problem, where="key `prompt`", fix="drop `prompt`, or keep the last turn of `chosen`")
    return before or prompt


def _ending(row: Row, key: str) -> tuple[tuple[Message, ...], str]:
    """The turns before the answer, and the answer."""
    if not isinstance(row.get(key), list):
        return (), text_at(row, key)
    turns = messages_at(row, key)
    if not turns or turns[-1].role != "assistant":
        raise DataError("does not end in an assistant turn", where=f"key `{key}`")
    return turns[:-1], turns[-1].content


_PARSERS: dict[str, Callable[[Row, str], Record]] = {
    "ranking": _ranking,
    "chosen-rejected": _chosen_rejected,
    "prompt-response": _answered("response"),
    "prompt-completion": _answered("completion"),
    "instruction": _instruction,
    "messages": _messages,
    "prompt": _prompt,
}
