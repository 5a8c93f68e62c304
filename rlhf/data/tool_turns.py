"""Turns that call tools and turns that hold what a tool returned, in the shape of OpenAI's chat format.

A call is kept as JSON text within the turn that makes it, and the functions that may be called as JSON text in the
first turn of a conversation, so that both stay with their turns wherever rows are split, joined or cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf.data.records import Demonstration, MarkedAnswers, Message, Ranking, Record
from rlhf.errors import DataError, TemplateError

CALL_KEYS = ("tool_calls", "tool_call_id", "name", "tools")  # of a message
_SHAPE = '[{"type": "function", "function": {"name": ..., "arguments": ...}}]'


def calls_text(entry: Mapping[str, Any]) -> str:
    """The calls of a turn as JSON text, with arguments as objects; "" for none.

    Raises: DataError for calls of another shape.
    """
    calls = entry.get("tool_calls")
    if not calls:
        return ""
    if not isinstance(calls, list) or not all(isinstance(each, dict) and _named(each) for each in calls):
        raise DataError("is no list of calls", where="key `tool_calls`", expected=_SHAPE)
    return json.dumps([_call(call) for call in calls], ensure_ascii=False)


def _named(call: Mapping[str, Any]) -> bool:
    function = call.get("function")
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = call["function"].get("arguments") or {}
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise DataError("are no JSON object", where="key `tool_calls[].function.arguments`")
    named = {"name": call["function"]["name"], "arguments": arguments}
    return {**({"id": call["id"]} if call.get("id") else {}), "type": "function", "function": named}


def tools_text(row: Mapping[str, Any]) -> str:
    """The functions of a row that may be called as JSON text; "" for none.

    Raises: DataError for anything but a list of objects.
    """
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError:
            tools = [None]
    if not tools:
        return ""
    if not isinstance(tools, list) or not all(isinstance(each, dict) for each in tools):
        raise DataError("is no list of functions", where="key `tools`", expected='[{"type": "function", ...}]')
    return json.dumps(tools, ensure_ascii=False)


def with_tools(record: Record, row: Mapping[str, Any]) -> Record:
    """The record with the row's `tools` in the first turn of its conversation."""
    tools = tools_text(row)
    if not tools:
        return record
    if isinstance(record, Ranking | MarkedAnswers):
        return replace(record, prompt=_offering(record.prompt, tools))
    if isinstance(record, Demonstration):
        return replace(record, messages=_offering(record.messages, tools))
    return replace(record, messages=_offering(record.messages, tools))


def _offering(messages: tuple[Message, ...], tools: str) -> tuple[Message, ...]:
    return (replace(messages[0], tools=tools), *messages[1:])


def for_template(message: Message, *, as_text: bool, none: bool) -> dict[str, Any]:
    """What a template gets of a turn besides its role, content and input.

    Args:
        message: the turn.
        as_text: arguments of calls as JSON text instead of objects.
        none: None instead of "" as the content of a turn that only calls tools.
    """
    found: dict[str, Any] = {}
    if message.calls:
        calls = json.loads(message.calls)
        for call in calls if as_text else ():
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        found["tool_calls"] = calls
        if none and not message.content:
            found["content"] = None
    for name, value in (("tool_call_id", message.call_id), ("name", message.name)):
        if value:
            found[name] = value
    return found


def call_styles(messages: Sequence[Message]) -> Iterator[dict[str, bool]]:
    """The ways in which templates expect calls, the usual one first; one of any for a conversation without calls."""
    calls = any(message.calls for message in messages)
    yield {"as_text": False, "none": True}
    if calls:
        yield from (
            {"as_text": True, "none": True},
            {"as_text": False, "none": False},
            {"as_text": True, "none": False},
        )


def with_marked_names(messages: Sequence[Message]) -> tuple[list[Message], dict[str, str]]:
    """The conversation with a mark for the name of each function, and what each mark stands for.

    The name itself may be in the text of another turn, so that only a mark shows whether a template writes it.
    """
    marks: dict[str, str] = {}

    def mark(name: str, what: str) -> str:
        text = f"\ue0a2{len(marks)}\ue0a3"
        marks[text] = f"{what}: {name}"
        return text

    marked = []
    for message in messages:
        calls, tools = json.loads(message.calls or "[]"), json.loads(message.tools or "[]")
        for call in calls:
            call["function"]["name"] = mark(call["function"]["name"], "calls of tools")
        for tool in tools:
            function = tool.get("function", tool)
            function["name"] = mark(function.get("name", ""), "the functions that may be called")
        texts = [json.dumps(value, ensure_ascii=False) if value else "" for value in (calls, tools)]
        marked.append(replace(message, calls=texts[0], tools=texts[1]))
    return marked, marks


def check_names(text: str, marks: Mapping[str, str]) -> None:
    """Raises: TemplateError when a rendered text lacks a mark of `with_marked_names`."""
    for mark, name in marks.items():
        if mark not in text:
            raise TemplateError(
                f"the chat template does not write {name}",
                where="data.template",
                fix="set data.template=null for the template of a model with tools; or leave these rows out, or what "
                "may be called alone: data.train='[{path: FILE, ignore: [tools]}]'",
            )
