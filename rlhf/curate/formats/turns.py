"""Conversations of public rows as turns {role, content}: message lists under any of the public names, transcripts.

Texts lose outer whitespace and become NFC; nothing else changes. Neighbouring turns of one role are joined. Errors are
DataErrors whose `where` is the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlhf.data.public_shapes import COLUMNS, LISTS, ROLES, TRANSCRIPT, is_transcript
from rlhf.data.readers import Row
from rlhf.data.row_keys import below
from rlhf.data.row_values import at_key, learnt_at, list_at, text_at
from rlhf.errors import DataError

EXCHANGE = ("human", "assistant")  # ms-swift's entries of a question and its answer
TURN_KEYS = ("role", "from", "content", "value", "text", "input", "weight", "loss", "training", *EXCHANGE)
SYSTEM = "system"
HISTORY = "history"
QUESTION_KEYS = frozenset((*COLUMNS["prompt"], *COLUMNS["input"], SYSTEM, HISTORY))  # that `asked_turns` reads
NO_INPUT = ("<noinput>", "nan")  # Self-Instruct's, and pandas' for an empty cell
_MARKER = re.compile(r"\n*<extra_id_[01]>(System|User|Assistant)\n")  # between the turns of HelpSteer's prompts


def in_lists(keys: Iterable[str] = LISTS) -> frozenset[str]:
    """The paths that `turns_of` reads of lists under these keys."""
    return frozenset[str]().union(*(below(key, TURN_KEYS) for key in keys))


def turns_of(entries: object, key: str) -> list[Row]:
    """A list of messages under any of the public names, with neighbouring turns of one role joined."""
    if not isinstance(entries, list) or not entries:
        raise DataError("is not a list of messages, or an empty one", where=f"key `{key}`")
    turns: list[Row] = []
    for name, entry in _entries(entries, key):
        turn = turn_of(entry, name)
        if turns and turns[-1]["role"] == turn["role"]:
            _join(turns[-1], turn, name)
        else:
            turns.append(turn)
    if any(turn["role"] == SYSTEM for turn in turns[1:]):
        raise DataError("a system turn after the first", where=f"key `{key}`")
    return turns


def _entries(entries: list[Any], key: str) -> Iterator[tuple[str, object]]:
    """(place, message) of every message; an exchange is two."""
    for index, entry in enumerate(entries):
        name = f"{key}[{index}]"
        if isinstance(entry, dict) and EXCHANGE[0] in entry and EXCHANGE[1] in entry:
            yield from ((name, {"from": who, "value": entry[who]}) for who in EXCHANGE)
        else:
            yield name, entry


def _join(before: Row, turn: Row, name: str) -> None:
    if before.get("weight") != turn.get("weight"):
        raise DataError("follows a turn of the same role with another weight", where=f"key `{name}.weight`")
    before["content"] += f"\n{turn['content']}"
    if turn.get("input"):
        before["input"] = "\n".join(filter(None, (before.get("input"), turn["input"])))


def turn_of(entry: object, name: str) -> Row:
    """One message; an answer that must not be learnt has `weight` 0."""
    with at_key(name):
        if not isinstance(entry, dict):
            raise DataError("is not a message", expected="{role, content}")
        given = entry.get("role", entry.get("from"))
        role = ROLES.get(given.lower()) if isinstance(given, str) else None
        if role is None or entry.get("tool_calls") or entry.get("function_call"):
            raise DataError("a role other than user, assistant and system, or a call of a tool")
        key = next((key for key in ("content", "value", "text") if key in entry), "content")
        content = _parts(entry[key]) if isinstance(entry.get(key), list) else entry.get(key)
        turn: Row = {"role": role, "content": text_at({key: content}, key, name=f"{name}.{key}")}
        if role == "user" and entry.get("input"):
            turn["input"] = text_at(entry, "input", name=f"{name}.input")
        if role == "assistant" and not learnt_at(entry, name):
            turn["weight"] = 0
        return turn


def _parts(parts: Sequence[object]) -> str:
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise DataError("a part that is not text", fix="pictures and sounds cannot be trained on")
    return "\n".join(map(str, texts))


def transcript_turns(text: str, key: str) -> list[Row]:
    """The turns of a text with Human: and Assistant: at the start of paragraphs; an open answer at its end is none."""
    pieces = TRANSCRIPT.split(text)
    said = list(zip(pieces[1::2], pieces[2::2], strict=True))
    if said and said[-1][0] == "Assistant" and not said[-1][1].strip():
        said.pop()
    return turns_of([{"from": "user" if who == "Human" else "assistant", "value": words} for who, words in said], key)


def prompt_turns(row: Mapping[str, Any], key: str) -> list[Row]:
    """A prompt: a list of messages, a transcript, HelpSteer's marked text, or one question."""
    value = row.get(key)
    if isinstance(value, list):
        return turns_of(value, key)
    text = text_at(row, key)
    if is_transcript(text):
        return transcript_turns(text, key)
    first, *rest = _MARKER.split(text)
    marked = list(zip(rest[::2], rest[1::2], strict=True))
    said = [("User", first), *marked] if first.strip() else marked
    return turns_of([{"from": who, "value": words} for who, words in said], key)


def asked_turns(row: Mapping[str, Any]) -> list[Row]:
    """The turns before an answer: a system text, earlier turns, and the question with what it is about.

    Reads the keys of `QUESTION_KEYS`; the question is under any of the names of a prompt column.
    """
    name = next((name for name in COLUMNS["prompt"] if row.get(name)), "prompt")
    turns = prompt_turns(row, name)
    context = next((text for key in COLUMNS["input"] if (text := optional_text(row, key))), "")
    if context and turns[-1]["role"] == "user":
        turns[-1]["input"] = context
    return with_system(row, [*history_turns(row), *turns])


def history_turns(row: Mapping[str, Any]) -> list[Row]:
    """Earlier turns as LLaMA-Factory and ms-swift write them: `history` [[question, answer], ...]."""
    turns: list[Row] = []
    if not row.get(HISTORY):
        return turns
    with at_key(HISTORY):
        for index, pair in enumerate(list_at(row, HISTORY)):
            if not isinstance(pair, list) or len(pair) != 2:
                raise DataError("is not a question and its answer", where=f"key `{HISTORY}[{index}]`")
            roles = zip(("user", "assistant"), pair, strict=True)
            turns += turns_of([{"role": role, "content": text} for role, text in roles], f"{HISTORY}[{index}]")
    return turns


def with_system(row: Mapping[str, Any], turns: list[Row]) -> list[Row]:
    """The turns after the row's `system` text, which must not contradict a system turn among them."""
    text = optional_text(row, SYSTEM)
    if not text:
        return turns
    if turns and turns[0]["role"] == SYSTEM:
        if turns[0]["content"] != text:
            raise DataError("is another text than the system turn", where=f"key `{SYSTEM}`")
        return turns
    return [{"role": SYSTEM, "content": text}, *turns]


def optional_text(row: Mapping[str, Any], key: str) -> str:
    """The text under a key, or "" where there is none."""
    text = "" if row.get(key) is None else text_at(row, key, allow_empty=True)
    return "" if text.lower() in NO_INPUT else text


def check_question(turns: Sequence[Row]) -> None:
    """Raises DataError unless the turns go from a user turn to a user turn, after a system turn if any."""
    roles = [turn["role"] for turn in turns if turn["role"] != SYSTEM]
    if not roles or roles[-1] != "user" or roles[0] != "user":
        raise DataError("does not go from a user turn to a user turn", where="key `prompt`")
