"""Recognises rows of public data sets by their keys, so that every command can name the import that converts them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

_KEYS = yaml.safe_load((resources.files("rlhf.data") / "public_keys.yaml").read_text(encoding="utf-8"))
ROLES: dict[str, str] = {name: role for role, names in _KEYS["roles"].items() for name in names}
COLUMNS: dict[str, list[str]] = _KEYS["columns"]
LISTS = ("messages", "conversations", "conversation")
TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant):")

# The keys of which any set marks a shape, the most particular first.
_MARKS: dict[str, tuple[set[str], ...]] = {
    "openai": ({"preferred_output"}, {"non_preferred_output"}),
    "arena": (
        {"winner", "conversation_a", "conversation_b"},
        {"winner_model_a", "winner_model_b", "response_a", "response_b"},
    ),
    "shp": ({"history", "human_ref_A", "human_ref_B"},),
    "pku": ({"response_0", "response_1", "better_response_id"}, {"response_0", "response_1", "safer_response_id"}),
    "helpsteer": (
        {"prompt", "response", "helpfulness"},
        {"prompt", "response_1", "response_2", "preference_strength"},
        {"context", "response1", "response2", "overall_preference"},
    ),
    "stack-exchange": ({"question", "response_j", "response_k"},),
    "hh": (
        {"chosen", "rejected"},
        *({key, rejected} for key in LISTS for rejected in ("rejected_response", "rejected_messages", "rejected")),
    ),
}
_ANSWER_COLUMNS = ("prompt", "response")
LABELS = ("label", "kto_tag", "rating")  # whether an answer is good: TRL and ms-swift, LLaMA-Factory, our chat page
_VERDICTS = {True: True, False: False, "up": True, "down": False}
_ANSWERED = ({"prompt", "completion"}, {"prompt", "response"}, {"instruction", "output"}, {"query", "response"})


def public_shape(row: Mapping[str, Any]) -> str:
    """The --format of `rlhf data import` for a row, by its keys; csv for named columns, which any other row has."""
    keys = row.keys()
    for name, marks in _MARKS.items():
        if any(mark <= keys for mark in marks):
            return name
    if _objects(row, "answers", "rank"):
        return "nectar"
    if _objects(row, "completions", "response"):
        return "ultrafeedback"
    answered = any(mark <= keys for mark in _ANSWERED) or any(isinstance(row.get(key), list) for key in LISTS)
    if answered and label_of(row)[1] is not None:
        return "kto"
    return _plain_shape(row)


def _plain_shape(row: Mapping[str, Any]) -> str:
    """The shape of a demonstration."""
    if any(isinstance(row.get(key), list) for key in LISTS):
        return "messages"
    if {"prompt", "completion"} <= row.keys():
        return "openai"
    if "instruction" in row and ("output" in row or "instances" in row):
        return "alpaca"
    return "csv"


def _objects(row: Mapping[str, Any], key: str, inner: str) -> bool:
    values = row.get(key)
    return isinstance(values, list) and bool(values) and isinstance(values[0], dict) and inner in values[0]


def label_of(row: Mapping[str, Any]) -> tuple[str, bool | None]:
    """The key that says whether the row's answer is good, and what it says; None for a value that is no verdict."""
    key = next((key for key in LABELS if row.get(key) is not None), LABELS[0])
    value = row.get(key)
    return key, _VERDICTS[value] if isinstance(value, bool | str) and value in _VERDICTS else None


def is_transcript(value: object) -> bool:
    """Whether a text is a whole conversation with Human: and Assistant:, as in hh-rlhf and Nectar."""
    return isinstance(value, str) and TRANSCRIPT.match(value.lstrip()) is not None


def import_command(row: Mapping[str, Any], path: str = "FILE") -> str:
    """The command that converts a file of such rows."""
    return f"rlhf data import --format {public_shape(row)} --in {path} --out rows.jsonl"


def import_hint(row: Mapping[str, Any], path: str) -> str:
    """How to convert a file whose rows have the keys of a public format; "" for keys that no import knows."""
    if public_shape(row) == "csv" and not all(any(key in row for key in COLUMNS[role]) for role in _ANSWER_COLUMNS):
        return ""
    return f"{import_command(row, path)} converts it"
