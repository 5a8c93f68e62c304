"""Converts rows of public formats to rows of this package: `messages`, or `prompt` with `chosen` and `rejected`.

A converter takes one row and returns one row or several; it raises a DataError, whose `where` is the key, for a row
that it cannot use. Texts lose outer whitespace and become NFC; nothing else changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

import yaml

from rlhf.curate.chats.turns import answered_part
from rlhf.data.formats import at_key, text_at
from rlhf.data.readers import Row
from rlhf.errors import DataError

_KEYS = yaml.safe_load((resources.files("rlhf.curate.formats") / "public_keys.yaml").read_text(encoding="utf-8"))
_ROLES = {name: role for role, names in _KEYS["roles"].items() for name in names}
COLUMNS: dict[str, list[str]] = _KEYS["columns"]
_LISTS = ("messages", "conversations", "conversation")
_HUMAN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def recognise_row(row: Mapping[str, Any]) -> str:
    """The --format of a row by its keys: openai, messages, alpaca, hh, or csv for named columns."""
    if any(isinstance(row.get(key), list) for key in _LISTS):
        return "messages"
    if "preferred_output" in row or {"prompt", "completion"} <= set(row):
        return "openai"
    if {"chosen", "rejected"} <= set(row):
        return "hh"
    if "instruction" in row and ("output" in row or "instances" in row):
        return "alpaca"
    return "csv"


def turns_of(entries: object, key: str) -> list[Row]:
    """A list of messages under any of the public names, with neighbouring turns of one role joined."""
    if not isinstance(entries, list) or not entries:
        raise DataError("is not a list of messages, or an empty one", where=f"key `{key}`")
    turns: list[Row] = []
    for index, entry in enumerate(entries):
        turn = _turn(entry, f"{key}[{index}]")
        if turns and turns[-1]["role"] == turn["role"]:
            turns[-1]["content"] += f"\n{turn['content']}"
            if turn.get("input"):
                turns[-1]["input"] = "\n".join(filter(None, (turns[-1].get("input"), turn["input"])))
        else:
            turns.append(turn)
    if any(turn["role"] == "system" for turn in turns[1:]):
        raise DataError("a system turn after the first", where=f"key `{key}`")
    return turns


def _turn(entry: object, name: str) -> Row:
    with at_key(name):
        if not isinstance(entry, dict):
            raise DataError("is not a message", expected="{role, content}")
        given = entry.get("role", entry.get("from"))
        role = _ROLES.get(given.lower()) if isinstance(given, str) else None
        if role is None or entry.get("tool_calls") or entry.get("function_call"):
            raise DataError("a role other than user, assistant and system, or a call of a tool")
        if entry.get("weight") == 0:
            raise DataError("a turn of weight 0, which must not be learnt", fix="end the conversation before it")
        key = next((key for key in ("content", "value", "text") if key in entry), "content")
        content = _parts(entry[key]) if isinstance(entry.get(key), list) else entry.get(key)
        turn = {"role": role, "content": text_at({key: content}, key, name=f"{name}.{key}")}
        if role == "user" and entry.get("input"):
            turn["input"] = text_at(entry, "input", name=f"{name}.input")
        return turn


def _parts(parts: Sequence[object]) -> str:
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise DataError("a part that is not text", fix="pictures and sounds cannot be trained on")
    return "\n".join(map(str, texts))


def from_messages(row: Mapping[str, Any]) -> list[Row]:
    """OpenAI's `messages` and ShareGPT's `conversations`, from the first user turn to the last assistant turn."""
    key = next((key for key in _LISTS if key in row), "messages")
    turns = turns_of(row.get(key), key)
    head = [turns.pop(0)] if turns[0]["role"] == "system" else []
    if not head and isinstance(row.get("system"), str) and row["system"].strip():
        head = [{"role": "system", "content": text_at(row, "system")}]
    kept = answered_part(turns)
    if not kept:
        raise DataError("no user turn that the assistant answers", where=f"key `{key}`")
    return [{"messages": [*head, *kept]}]


def from_openai(row: Mapping[str, Any], separator: str = "", stop: str = "") -> list[Row]:
    """Hosted fine-tuning: chat rows, preference rows, or the older prompt and completion.

    For the older rows, `separator` is removed from the end of the prompt and `stop` from that of the completion.
    """
    if "preferred_output" in row:
        return _from_preference(row)
    if "completion" not in row:
        return from_messages(row)
    texts = dict(row)
    for key, end in (("prompt", separator), ("completion", stop)):
        if isinstance(texts.get(key), str):
            texts[key] = str(texts[key]).removesuffix(end)
    return [_answered(text_at(texts, "prompt"), text_at(texts, "completion"))]


def _from_preference(row: Mapping[str, Any]) -> list[Row]:
    asked = row.get("input")
    prompt = turns_of(asked.get("messages") if isinstance(asked, dict) else None, "input.messages")
    better, worse = (turns_of(row.get(key), key) for key in ("preferred_output", "non_preferred_output"))
    if len(better) != 1 or len(worse) != 1:
        raise DataError("is not one answer", where="key `preferred_output`")
    return [_compared(prompt, better[0]["content"], worse[0]["content"])]


def from_alpaca(row: Mapping[str, Any]) -> list[Row]:
    """instruction, input, output; or Self-Instruct's instruction with `instances`, one row per instance."""
    instances = row.get("instances", [row])
    if not isinstance(instances, list) or not instances:
        raise DataError("is not a list of instances, or an empty one", where="key `instances`")
    prompt = text_at(row, "instruction")
    rows = []
    for index, instance in enumerate(instances):
        with at_key(f"instances[{index}]"):
            if not isinstance(instance, dict):
                raise DataError("is not an object", expected="{input, output}")
            rows.append(_answered(prompt, text_at(instance, "output"), _optional(instance, "input")))
    return rows


def _optional(row: Mapping[str, Any], key: str) -> str:
    text = "" if row.get(key) is None else text_at(row, key, allow_empty=True)
    return "" if text.lower() in ("<noinput>", "nan") else text


def from_hh(row: Mapping[str, Any]) -> list[Row]:
    """chosen and rejected: whole transcripts with Human: and Assistant:, lists of messages, or answers to a prompt."""
    asked_better, better = _ending(row, "chosen")
    asked_worse, worse = _ending(row, "rejected")
    if asked_better != asked_worse:
        raise DataError("differs from `chosen` before the last answer", where="key `rejected`")
    name = next((name for name in COLUMNS["prompt"] if row.get(name)), "prompt")
    if not asked_better:
        asked_better = (
            turns_of(row[name], name)
            if isinstance(row.get(name), list)
            else [{"role": "user", "content": text_at(row, name)}]
        )
    return [_compared(asked_better, better, worse)]


def _ending(row: Mapping[str, Any], key: str) -> tuple[list[Row], str]:
    """The turns before the answer, and the answer."""
    value = row.get(key)
    if isinstance(value, list):
        turns = turns_of(value, key)
    else:
        text = text_at(row, key)
        pieces = _HUMAN.split(text)
        if len(pieces) < 3 or pieces[0].strip():
            return [], text
        entries = zip(pieces[1::2], pieces[2::2], strict=True)
        turns = turns_of([{"from": {"Human": "user"}.get(who, "bot"), "value": said} for who, said in entries], key)
    if turns[-1]["role"] != "assistant":
        raise DataError("does not end in an answer", where=f"key `{key}`")
    return turns[:-1], turns[-1]["content"]


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


def from_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[Row]:
    """A row of named columns: an answered prompt, a comparison, or a prompt alone."""
    texts = {role: row.get(name) for role, name in columns.items()}
    if "chosen" in texts and "rejected" in texts:
        return from_hh(texts)
    if "response" not in texts:
        return [{"prompt": _with_input(text_at(texts, "prompt"), _optional(texts, "input"))}]
    answered = _answered(text_at(texts, "prompt"), text_at(texts, "response"), _optional(texts, "input"))
    if system := _optional(texts, "system"):
        answered["messages"].insert(0, {"role": "system", "content": system})
    return [answered]


def _answered(prompt: str, answer: str, context: str = "") -> Row:
    user = {"role": "user", "content": prompt, **({"input": context} if context else {})}
    return {"messages": [user, {"role": "assistant", "content": answer}]}


def _compared(prompt: list[Row], better: str, worse: str) -> Row:
    roles = [turn["role"] for turn in prompt if turn["role"] != "system"]
    if not roles or roles[-1] != "user" or roles[0] != "user":
        raise DataError("does not go from a user turn to a user turn", where="key `prompt`")
    if better == worse:
        raise DataError("is the same as `chosen`", where="key `rejected`")
    return {"prompt": prompt, "chosen": better, "rejected": worse}


def _with_input(prompt: str, context: str) -> str:
    return f"{prompt}\n\n{context}" if context else prompt


def completions(messages: Sequence[Mapping[str, Any]], separator: str, stop: str) -> list[Row]:
    """{prompt, completion} of every answer to the user turn before it; prompts end in `separator`, answers in `stop`.

    Raises:
        DataError: when a text contains its end marker, so that a model would stop early.
    """
    rows = []
    for asked, answer in pairwise(messages):
        if asked["role"] == "user" and answer["role"] == "assistant":
            prompt, completion = _with_input(asked["content"], asked.get("input", "")), answer["content"]
            if (separator and separator in prompt) or (stop and stop in completion):
                raise DataError("a text holds the separator or the stop sequence", fix="choose other markers")
            rows.append({"prompt": prompt + separator, "completion": completion + stop})
    return rows
