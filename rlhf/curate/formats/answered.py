"""Public rows that hold an answer to learn: chats, instructions and tables, as rows of `messages`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rlhf.curate.chats.turns import answered_part
from rlhf.curate.formats.compared import from_pair
from rlhf.curate.formats.turns import (
    HISTORY,
    NO_INPUT,
    QUESTION_KEYS,
    SYSTEM,
    TURN_KEYS,
    asked_turns,
    history_turns,
    in_lists,
    turns_of,
    with_system,
)
from rlhf.data.public_shapes import COLUMNS, LISTS
from rlhf.data.readers import Row
from rlhf.data.row_keys import below
from rlhf.data.row_values import at_key, text_at
from rlhf.errors import DataError

CHAT_KEYS = frozenset((SYSTEM, HISTORY)) | in_lists()
ALPACA_KEYS = frozenset(("instruction", "input", "context", "output", "instances", SYSTEM, HISTORY))
LEGACY_KEYS = QUESTION_KEYS | {"completion"} | below("prompt", TURN_KEYS) | below("completion", TURN_KEYS)
TRIMMED = "turns before the first question or after the last answer"

Notes = Counter[str]  # what was left out or changed, with counts


def from_messages(row: Mapping[str, Any], notes: Notes) -> list[Row]:
    """OpenAI's `messages` and ShareGPT's `conversations`, from the first user turn to the last assistant turn."""
    key = next((key for key in LISTS if row.get(key)), "messages")
    turns = with_system(row, turns_of(row.get(key), key))
    head = [turns.pop(0)] if turns[0]["role"] == SYSTEM else []
    turns = [*history_turns(row), *turns]
    kept = answered_part(turns)
    if not kept:
        raise DataError("no user turn that the assistant answers", where=f"key `{key}`")
    if all(turn.get("weight") == 0 for turn in kept if turn["role"] == "assistant"):
        raise DataError("every answer has weight 0, so that there is nothing to learn", where=f"key `{key}`")
    notes[TRIMMED] += len(turns) - len(kept)
    return [{"messages": [*head, *kept]}]


def from_completion(row: Mapping[str, Any], notes: Notes, separator: str = "", stop: str = "") -> list[Row]:
    """prompt and completion: texts, or TRL's lists of messages.

    `separator` is removed from the end of the prompt, and `stop` from that of the completion.
    """
    texts = dict(row)
    for key, end in (("prompt", separator), ("completion", stop)):
        if isinstance(texts.get(key), str):
            texts[key] = str(texts[key]).removesuffix(end)
    asked = asked_turns(texts)
    if isinstance(texts.get("completion"), list):
        said = turns_of([*asked, *texts["completion"]], "completion")
        return from_messages({"messages": said}, notes)
    return [{"messages": [*asked, _answer(texts, "completion")]}]


def from_alpaca(row: Mapping[str, Any], notes: Notes) -> list[Row]:
    """instruction, input, output, with LLaMA-Factory's `system` and `history`; or Self-Instruct's `instances`."""
    instances = row.get("instances", [row])
    if not isinstance(instances, list) or not instances:
        raise DataError("is not a list of instances, or an empty one", where="key `instances`")
    text_at(row, "instruction")
    rows = []
    for index, instance in enumerate(instances):
        with at_key(f"instances[{index}]"):
            if not isinstance(instance, dict):
                raise DataError("is not an object", expected="{input, output}")
            shared = {key: row.get(key) for key in ("instruction", "context", SYSTEM, HISTORY)}
            question = {**shared, "input": instance.get("input")}
            rows.append({"messages": [*asked_turns(question), _answer(instance, "output")]})
    return rows


def _answer(row: Mapping[str, Any], key: str) -> Row:
    value = row.get(key)
    if isinstance(value, list) and len(value) > 1:
        problem = f"is a list of {len(value)} answers, and nothing says which is better"
        raise DataError(problem, where=f"key `{key}`", fix="write the better one as `chosen`, the other as `rejected`")
    return {"role": "assistant", "content": text_at(row, key)}


def columns_of(names: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The column of each role: the `given` ones first, then those of known names.

    Raises:
        DataError: when a given column does not exist, or no column holds the prompt.
    """
    missing = [name for name in given.values() if name not in names]
    shown = ", ".join(names)
    if missing:
        raise DataError(f"no column is called {', '.join(missing)}", expected=f"one of {shown}")
    lowered = {name.strip().lower(): name for name in reversed(names)}
    found = dict(given)
    for role, known in COLUMNS.items():
        name = next((lowered[name] for name in known if name in lowered), None)
        if name is not None and role not in found and name not in found.values():
            found[role] = name
    if "prompt" not in found:
        fix = "--columns prompt=NAME,response=NAME, with NAME one of those"
        raise DataError(f"no column is known to hold the prompt; there are {shown}", fix=fix)
    return found


def from_columns(row: Mapping[str, Any], notes: Notes, columns: Mapping[str, str]) -> list[Row]:
    """A row of named columns: an answered prompt, a comparison, or a prompt alone."""
    texts = {role: row.get(name) for role, name in columns.items()}
    texts = {role: None if isinstance(text, str) and text.lower() in NO_INPUT else text for role, text in texts.items()}
    if "chosen" in texts and "rejected" in texts:
        return from_pair(texts, notes)
    if "response" in texts:
        return [{"messages": [*asked_turns(texts), _answer(texts, "response")]}]
    asked = asked_turns(texts)
    if len(asked) > 1:
        return [{"prompt": asked}]
    return [{"prompt": _with_input(asked[0]["content"], asked[0].get("input", ""))}]


def _with_input(prompt: str, context: str) -> str:
    return f"{prompt}\n\n{context}" if context else prompt


def completions(messages: Sequence[Mapping[str, Any]], separator: str, stop: str) -> list[Row]:
    """{prompt, completion} of every answer to the user turn before it; prompts end in `separator`, answers in `stop`.

    Raises:
        DataError: when a text contains its end marker, so that a model would stop early.
    """
    rows = []
    for asked, answer in pairwise(messages):
        if asked["role"] == "user" and answer["role"] == "assistant" and answer.get("weight") != 0:
            prompt, completion = _with_input(asked["content"], asked.get("input", "")), answer["content"]
            if (separator and separator in prompt) or (stop and stop in completion):
                raise DataError("a text holds the separator or the stop sequence", fix="choose other markers")
            rows.append({"prompt": prompt + separator, "completion": completion + stop})
    return rows
