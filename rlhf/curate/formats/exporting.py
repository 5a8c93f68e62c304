"""`rlhf data export`: rows of this package as rows for hosted fine-tuning, messages, Alpaca, HH."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rlhf.config.flags import flag
from rlhf.curate.output import Output, manifest_path, progress
from rlhf.data.records import Demonstration, Message, Ranking, Record
from rlhf.data.row_values import key_of, reason_of
from rlhf.data.sources import parsed_rows
from rlhf.errors import DataError

HOSTED_MINIMUM = 10  # rows; the hosted service refuses smaller files

Row = dict[str, Any]
_TRANSCRIPT_SIGN = re.compile(r"(?:^|\n\n)(?:Human|Assistant):")


@dataclass(frozen=True, slots=True)
class RowExportOptions:
    """The format, and the files to read and to write."""

    format: Literal["openai", "messages", "alpaca", "hh"] = flag(..., "format to write")
    file: str = flag(..., "JSONL, JSON array or CSV to read", name="--in", metavar="FILE")
    out: Path = flag(..., "JSONL file to write", metavar="FILE")


def run(options: RowExportOptions) -> int:
    """Writes the file and prints its summary."""
    output = export_file(options)
    sys.stdout.write(f"{output.summary()}\nmanifest: {manifest_path(output.path)}\n")
    if options.format == "openai" and output.kept < HOSTED_MINIMUM:
        sys.stdout.write(f"note: hosted fine-tuning refuses files of fewer than {HOSTED_MINIMUM} rows\n")
    return 0


def export_file(options: RowExportOptions) -> Output:
    """Writes the rows of a file in another format; returns the finished output.

    Raises:
        DataError: for a file that cannot be read or is of no known format, and when no row can be written.
    """
    file, first_problem = options.file, ""
    writer, needed = _FORMATS[options.format]
    with Output(options.out, command="data export", inputs=[file], options={"format": options.format}) as output:
        for parsed in progress(parsed_rows(file), Path(file).name):
            try:
                if isinstance(parsed.record, DataError):
                    raise parsed.record
                for exported in writer(parsed.record):
                    output.write(exported)
            except DataError as error:
                problem = f"{file}:{parsed.line} {key_of(error)} {error.problem}"
                first_problem = first_problem or problem
                output.drop(reason_of(error), problem)
        if not output.kept:
            problem = f"no row can be written as {options.format}" if first_problem else "no rows"
            fix = f"the first: {first_problem}" if first_problem else ""
            raise DataError(problem, where=file, expected=needed, fix=fix)
    return output


def _openai(record: Record) -> list[Row]:
    """Chat rows for demonstrations, preference rows for rankings."""
    if isinstance(record, Demonstration):
        return [{"messages": _role_and_content(record.messages)}]
    return [
        {
            "input": {"messages": _role_and_content(asked)},
            "preferred_output": [{"role": "assistant", "content": better}],
            "non_preferred_output": [{"role": "assistant", "content": worse}],
        }
        for asked, better, worse in _pairs(record)
    ]


def _messages(record: Record) -> list[Row]:
    return [{"messages": [message.as_row() for message in _demonstration(record).messages]}]


def _alpaca(record: Record) -> list[Row]:
    messages = _demonstration(record).messages
    if [message.role for message in messages] != ["user", "assistant"]:
        raise DataError("more than one question and one answer, which alpaca cannot express")
    asked, answer = messages
    return [{"instruction": asked.content, "input": asked.input, "output": answer.content}]


def _hh(record: Record) -> list[Row]:
    rows = []
    for asked, better, worse in _pairs(record):
        turns = [(message["role"], message["content"]) for message in _role_and_content(asked)]
        if turns[0][0] == "system":
            raise DataError("a system turn, which hh cannot express")
        if any(_TRANSCRIPT_SIGN.search(text) for text in (better, worse, *(text for _, text in turns))):
            raise DataError("a text with Human: or Assistant: at the start of a paragraph, which would read as a turn")
        start = "".join(f"\n\n{'Human' if role == 'user' else 'Assistant'}: {text}" for role, text in turns)
        rows.append({key: f"{start}\n\nAssistant: {text}" for key, text in (("chosen", better), ("rejected", worse))})
    return rows


def _demonstration(record: Record) -> Demonstration:
    if isinstance(record, Demonstration):
        return record
    raise DataError(f"is a {type(record).__name__.lower()}, not a demonstration")


def _pairs(record: Record) -> list[tuple[Sequence[Message], str, str]]:
    """(prompt, better, worse) of every untied pair of answers."""
    if not isinstance(record, Ranking):
        raise DataError(f"is a {type(record).__name__.lower()}, not a ranking")
    if record.all_tied:
        raise DataError("all answers tie")
    ranked = list(zip(record.ranks, record.responses, strict=True))
    return [
        (record.prompt, better, worse)
        for rank, better in ranked
        for other, worse in ranked
        if rank < other and better != worse
    ]


def _role_and_content(messages: Sequence[Message]) -> list[Row]:
    """Messages without `input`, which is appended to the content."""
    return [
        replace(turn, content=f"{turn.content}\n\n{turn.input}", input="").as_row() if turn.input else turn.as_row()
        for turn in messages
    ]


# The writer of each format, and the records it needs.
_FORMATS: dict[str, tuple[Callable[[Record], list[Row]], str]] = {
    "openai": (_openai, "demonstrations or rankings"),
    "messages": (_messages, "demonstrations: conversations that end in an answer"),
    "alpaca": (_alpaca, "demonstrations of one question and one answer"),
    "hh": (_hh, "rankings: answers to a prompt, some better than others"),
}
