"""Rows of this package as rows of public formats: what hosted fine-tuning takes, messages, Alpaca, HH."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlhf.curate.output import Output, progress
from rlhf.data.formats import Record, parse, sniff
from rlhf.data.readers import locate, read_rows
from rlhf.data.records import Demonstration, Message, Prompt, Ranking
from rlhf.errors import DataError

FORMATS = ("openai", "messages", "alpaca", "hh")
HOSTED_MINIMUM = 10  # rows below which the hosted service refuses a file

Row = dict[str, Any]
_TRANSCRIPT_SIGN = re.compile(r"(?:^|\n\n)(?:Human|Assistant):")


def export_file(file: str, out: Path, format: str) -> Output:
    """Writes the rows of `file` to `out` in `format`; the finished output, for its summary.

    Raises:
        DataError: for a file that cannot be read or is of no known format, and when no row is left.
    """
    write = _WRITERS[format]
    location = locate(file)
    first_problem, name = "", ""
    with Output(out, command="data export", inputs=[file], options={"format": format}) as output:
        for line, row in progress(read_rows(location), Path(file).name):
            try:
                if isinstance(row, DataError):
                    raise row
                name = name or sniff(row)
                for exported in write(parse(row, name, "")):
                    output.write(exported)
            except DataError as error:
                key = error.where if error.where.startswith("key ") else ""
                first_problem = first_problem or f"{file}:{line} {key} {error.problem}"
                output.drop(_reason(error), f"{file}:{line} {key} {error.problem}")
        if not output.kept:
            problem = f"no row can be written as {format}" if first_problem else "no rows"
            fix = f"the first: {first_problem}" if first_problem else ""
            raise DataError(problem, where=file, expected=_NEEDS[format], fix=fix)
    return output


def _reason(error: DataError) -> str:
    key = re.sub(r"\[\d+\]", "[]", error.where) + " " if error.where.startswith("key ") else ""
    return key + error.problem.partition(";")[0].partition(": ")[0]


def _openai(record: Record) -> list[Row]:
    """Chat rows for demonstrations, preference rows for rankings."""
    if isinstance(record, Demonstration):
        return [{"messages": _plain(record.messages)}]
    return [
        {
            "input": {"messages": _plain(asked)},
            "preferred_output": [{"role": "assistant", "content": better}],
            "non_preferred_output": [{"role": "assistant", "content": worse}],
        }
        for asked, better, worse in _pairs(record)
    ]


def _messages(record: Record) -> list[Row]:
    messages = _demonstration(record).messages
    return [{"messages": [_entry(message) for message in messages]}]


def _entry(message: Message) -> Row:
    entry = {"role": message.role, "content": message.content}
    return {**entry, "input": message.input} if message.input else entry


def _alpaca(record: Record) -> list[Row]:
    messages = _demonstration(record).messages
    if [message.role for message in messages] != ["user", "assistant"]:
        raise DataError("more than one question and one answer, which alpaca cannot say")
    asked, answer = messages
    return [{"instruction": asked.content, "input": asked.input, "output": answer.content}]


def _hh(record: Record) -> list[Row]:
    rows = []
    for asked, better, worse in _pairs(record):
        turns = [(message["role"], message["content"]) for message in _plain(asked)]
        if turns[0][0] == "system":
            raise DataError("a system turn, which hh cannot say")
        if any(_TRANSCRIPT_SIGN.search(text) for text in (better, worse, *(text for _, text in turns))):
            raise DataError("a text with Human: or Assistant: at the start of a paragraph, which would read as a turn")
        start = "".join(f"\n\n{'Human' if role == 'user' else 'Assistant'}: {text}" for role, text in turns)
        rows.append({key: f"{start}\n\nAssistant: {text}" for key, text in (("chosen", better), ("rejected", worse))})
    return rows


def _demonstration(record: Record) -> Demonstration:
    if isinstance(record, Demonstration):
        return record
    raise DataError(f"is a {_kind(record)}, not a demonstration")


def _pairs(record: Record) -> list[tuple[Sequence[Message], str, str]]:
    """(prompt, better, worse) of every untied pair of answers."""
    if not isinstance(record, Ranking):
        raise DataError(f"is a {_kind(record)}, not a ranking")
    if record.all_tied:
        raise DataError("all answers tie")
    ranked = list(zip(record.ranks, record.responses, strict=True))
    return [
        (record.prompt, better, worse)
        for rank, better in ranked
        for other, worse in ranked
        if rank < other and better != worse
    ]


def _kind(record: Record) -> str:
    return "prompt" if isinstance(record, Prompt) else type(record).__name__.lower()


def _plain(messages: Sequence[Message]) -> list[Row]:
    """Role and content only; an input goes below its instruction."""
    return [
        {
            "role": message.role,
            "content": f"{message.content}\n\n{message.input}" if message.input else message.content,
        }
        for message in messages
    ]


_WRITERS: dict[str, Callable[[Record], list[Row]]] = {
    "openai": _openai,
    "messages": _messages,
    "alpaca": _alpaca,
    "hh": _hh,
}
_NEEDS = {
    "openai": "demonstrations or rankings",
    "messages": "demonstrations: conversations that end in an answer",
    "alpaca": "demonstrations of one question and one answer",
    "hh": "rankings: answers to a prompt, some better than others",
}
