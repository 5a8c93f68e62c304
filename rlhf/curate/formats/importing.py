"""`rlhf data import`: chat logs and rows of public formats into one JSONL file that every stage reads.

The format of a file is recognised by its first lines; rows that cannot be used are counted by reason. Personal
information is masked unless the caller asks to keep it, and the manifest counts what was masked.
"""

from __future__ import annotations

import hashlib
import re
import sys
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rlhf.config.flags import flag
from rlhf.curate.chats.events import Guesses, shown_guesses
from rlhf.curate.chats.exports import CHAT_FORMATS, export_format
from rlhf.curate.chats.turns import Chat, conversations, open_chat
from rlhf.curate.formats.persona import with_persona
from rlhf.curate.formats.public_rows import (
    columns_of,
    completions,
    from_alpaca,
    from_columns,
    from_hh,
    from_messages,
    from_openai,
    recognise_row,
)
from rlhf.curate.output import Output, manifest_path, progress
from rlhf.curate.privacy import mask_personal, require_privacy
from rlhf.curate.row_texts import texts_of, with_texts_changed
from rlhf.data.formats import key_of, reason_of
from rlhf.data.lines import encoding_of
from rlhf.data.readers import NumberedRow, Row, locate, read_rows, usable
from rlhf.errors import DataError

ROLES = ("prompt", "response", "input", "system", "chosen", "rejected")
_REPEATED = re.compile(r"([ㄱ-ㅣ])\1{2,}")  # ㅋㅋㅋㅋ and ㅠㅠㅠ: many tokens, little meaning
_NAMES = {"PHONE": "phone numbers", "EMAIL": "e-mail addresses", "ADDRESS": "addresses", "ACCOUNT": "bank accounts"}
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def parse_gap(text: str) -> timedelta:
    """30m, 6h or 2d as a time."""
    match = re.fullmatch(r"(\d+)([mhd])", text)
    if match is None or not int(match[1]):
        raise ArgumentTypeError(f"{text!r} is not a time such as 30m, 6h or 2d")
    return int(match[1]) * _UNITS[match[2]]


def parse_escapes(text: str) -> str:
    """Text whose typed \\n and \\t are line ends and tabs; shells pass them as two characters."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def parse_columns(text: str) -> dict[str, str]:
    """ROLE=NAME,... as a mapping."""
    pairs = [part.partition("=") for part in text.split(",")]
    columns = {role.strip(): name.strip() for role, _, name in pairs}
    if not all(columns.values()) or not set(columns) <= set(ROLES):
        raise ArgumentTypeError(f"{text!r} is not like prompt=질문,response=답변, of {', '.join(ROLES)}")
    return columns


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The files, and what decides the rows that are made from them."""

    files: tuple[str, ...] = flag(..., "files to read", name="--in", metavar="FILE", nargs="+")
    out: Path = flag(..., "file to write", metavar="OUT.jsonl")
    format: Literal[
        "auto",
        "kakao",
        "line",
        "discord",
        "telegram",
        "slack",
        "instagram",
        "openai",
        "messages",
        "alpaca",
        "hh",
        "csv",
    ] = flag("auto", "format of the files (default: recognised by their content)")
    me: tuple[str, ...] = flag((), "speaker of a chat to imitate; repeat it for their other names", metavar="NAME")
    partner: str = flag("", "in a group chat, keep only this other speaker", metavar="NAME")
    system: str = flag("", "persona: a system text that every conversation begins with", metavar="TEXT")
    gap: timedelta = flag(
        timedelta(hours=6),
        "a longer silence starts a new conversation: 30m, 6h, 2d (default: 6h)",
        metavar="6h",
        parse=parse_gap,
    )
    style: Literal["messages", "completion"] = flag("messages", "messages, or prompt and completion")
    separator: str = flag(
        "\n\n###\n\n", r"text at the end of a prompt (default: \n\n###\n\n)", metavar="TEXT", parse=parse_escapes
    )
    stop: str = flag(
        "\n\n@@@", r"text at the end of a completion (default: \n\n@@@)", metavar="TEXT", parse=parse_escapes
    )
    columns: Mapping[str, str] = flag(
        {}, f"columns of a table: {', '.join(ROLES)}", metavar="ROLE=NAME,...", parse=parse_columns
    )
    keep_pii: bool = flag(False, "keep phone numbers, e-mail addresses and the like; masking needs the extra `pii`")

    def recorded(self) -> dict[str, Any]:
        """The options that decide the rows, for the manifest."""
        return {
            "format": self.format,
            "me": self.me,
            "partner": self.partner,
            **({"system": self.system} if self.system else {}),
            "gap": str(self.gap),
            "style": self.style,
            **({"separator": self.separator, "stop": self.stop} if self.style == "completion" else {}),
            "columns": dict(self.columns),
            "personal information": "kept" if self.keep_pii else "masked",
        }


def run(options: ImportOptions) -> int:
    """Imports the files and prints the summary, and which column of a table holds what."""
    output = import_files(options)
    sys.stdout.write(f"{output.summary()}\nmanifest: {manifest_path(output.path)}\n")
    for file, columns in output.extra["columns"].items():
        shown = ", ".join(f"{column} -> {role or 'not used'}" for column, role in columns.items())
        sys.stdout.write(f"columns of {file}: {shown}\n")
    for file, guesses in output.extra["guessed"].items():
        sys.stdout.write("".join(f"{line}\n" for line in shown_guesses(file, guesses)))
    return 0


def import_files(options: ImportOptions) -> Output:
    """Writes the rows of all files to `options.out`; returns the finished output.

    Raises:
        DataError: before anything is written, for a missing file or package, a chat without the name of the speaker
            to imitate, a file of no known format; later for a file that breaks off, for files that hold different
            kinds of rows, and when no row is left.
    """
    if options.system and options.style == "completion":
        raise DataError("--system with --style completion, which has no place for it", fix="drop one of them")
    if not options.keep_pii:
        require_privacy("--keep-pii to keep it")
    sources = [_open(file, options) for file in options.files]
    with Output(options.out, command="data import", inputs=options.files, options=options.recorded()) as output:
        output.extra["formats"] = {source.name: source.format for source in sources}
        output.extra["columns"] = {source.name: source.columns for source in sources if source.columns}
        _write_all(sources, output, options)
        mask = str if options.keep_pii else _masked
        output.extra["guessed"] = {
            source.name: recorded for source in sources if (recorded := source.guesses.recorded(mask))
        }
    return output


def _masked(text: str) -> str:
    return mask_personal(text)[0]


@dataclass(frozen=True, slots=True)
class _Source:
    """A file of a known format; `rows` yields (line, rows or why there are none) and counts what it skips.

    `columns` gives the role of each column of a table, None for unused ones. `guesses` receives what had to be decided
    by the form of a text while `rows` runs.
    """

    name: str
    format: str
    rows: Callable[[Counter[str]], Iterator[tuple[int, list[Row] | DataError]]]
    columns: dict[str, str | None] = field(default_factory=dict)
    guesses: Guesses = field(default_factory=Guesses)


def _open(file: str, options: ImportOptions) -> _Source:
    location = locate(file)
    path = location.path
    app = (
        options.format if options.format in CHAT_FORMATS else export_format(path) if options.format == "auto" else None
    )
    if app is not None:
        guesses, chat = Guesses(), open_chat(path, app, options.me, options.partner, options.gap)
        return _Source(file, app, partial(_chat_rows, chat, guesses), guesses=guesses)
    if path.suffix.lower() in (".txt", ".eml"):
        raise DataError(
            "plain text that is not a KakaoTalk chat",
            where=file,
            expected="KakaoTalk (.txt, .csv, .eml), LINE (.txt), JSONL, a JSON array or CSV",
            fix="make it a CSV with a header, e.g. prompt,response",
        )
    encoding = encoding_of(path) if path.suffix.lower() == ".csv" else "utf-8"
    read = partial(read_rows, location, encoding)
    first, line = _first(read(), file)
    name = options.format if options.format != "auto" else "csv" if options.columns else recognise_row(first)
    try:
        columns = columns_of(list(first), options.columns) if name == "csv" else {}
        convert = _converter(name, columns, options)
    except DataError as error:
        where = f"{file}:{1 if path.suffix.lower() == '.csv' else line}"
        raise DataError(error.problem, where=where, expected=error.expected, fix=error.fix) from None
    roles = {column: role for role, column in columns.items()}
    shown = {column: roles.get(column) for column in first} if name == "csv" else {}
    return _Source(file, name, partial(_converted_rows, read, convert), shown)


def _first(rows: Iterator[NumberedRow], file: str) -> tuple[Row, int]:
    """The first row that can be read, which decides the format; raises the first error where there is none."""
    problem = DataError("no rows", where=file, expected="at least one row")
    for index, (line, row) in enumerate(islice(rows, 101)):
        if not isinstance(row, DataError):
            return row, line
        problem = row if index == 0 else problem
    raise problem


def _converter(name: str, columns: Mapping[str, str], options: ImportOptions) -> Callable[[Row], list[Row]]:
    if name == "csv":
        return partial(from_columns, columns=columns)
    if options.columns:
        raise DataError(f"--columns with --format {name}", fix="drop one of them")
    if name == "openai":
        return partial(from_openai, separator=options.separator, stop=options.stop)
    return {"messages": from_messages, "alpaca": from_alpaca, "hh": from_hh}[name]


def _chat_rows(chat: Chat, guesses: Guesses, counts: Counter[str]) -> Iterator[tuple[int, list[Row] | DataError]]:
    for line, messages in conversations(chat, counts, guesses):
        if isinstance(messages, DataError):
            yield line, messages
            continue
        for message in messages:
            message["content"], shortened = _REPEATED.subn(r"\1\1", message["content"])
            counts["repeated letters shortened"] += shortened
        yield line, [{"messages": messages}]


def _converted_rows(
    read: Callable[[], Iterator[NumberedRow]], convert: Callable[[Row], list[Row]], counts: Counter[str]
) -> Iterator[tuple[int, list[Row] | DataError]]:
    seen: set[bytes] = set()
    for line, row in read():
        try:
            identity = usable(row).get("id")
            if isinstance(identity, str | int):
                digest = hashlib.blake2b(str(identity).encode("utf-8", "replace"), digest_size=8).digest()
                if digest in seen:
                    raise DataError("an id of an earlier row", where=f"id {identity}")
                seen.add(digest)
            yield line, convert(usable(row))
        except DataError as error:
            yield line, error


def _write_all(sources: Sequence[_Source], output: Output, options: ImportOptions) -> None:
    """Writes the rows of all sources, masked and styled, and counts the dropped ones."""
    first_problem = ""
    keys: tuple[str, ...] = ()
    for source in sources:
        counts: Counter[str] = Counter()
        for line, converted in progress(source.rows(counts), Path(source.name).name):
            place = f"{source.name}:{line}"
            try:
                rows = _ready(converted, output, options)
            except DataError as error:
                first_problem = first_problem or f"{place}: {error.problem}"
                output.drop(reason_of(error), f"{place} {key_of(error)} {error.problem}")
                continue
            for row in rows:
                keys = keys or tuple(row)
                _check_kind(row, keys, place)
                output.write({**row, "source": Path(source.name).stem})
        output.count_all(counts)
    if not output.kept:
        files = ", ".join(source.name for source in sources)
        dropped = "; ".join(f"{number} {reason}" for reason, number in output.dropped.items())
        fix = f"the first: {first_problem}" if first_problem else ""
        raise DataError(f"no row is left: {dropped or 'there was none'}", where=files, fix=fix)


def _ready(rows: list[Row] | DataError, output: Output, options: ImportOptions) -> list[Row]:
    """The rows as they are written. Raises DataError where one cannot be used."""
    if isinstance(rows, DataError):
        raise rows
    if any("\0" in text for row in rows for _, text in texts_of(row)):
        raise DataError("a text with a NUL byte")

    def mask(text: str) -> str:
        masked, counts = mask_personal(text)
        output.count_all({_NAMES.get(label, label): number for label, number in counts.items()}, "masked ")
        return masked

    ready = [row if options.keep_pii else with_texts_changed(row, mask) for row in rows]
    if options.system:
        ready = [with_persona(row, options.system) for row in ready]
    if options.style != "completion":
        return ready
    if any("messages" not in row for row in ready):
        raise DataError("has no single answer to write as a completion", fix="--style messages")
    return [each for row in ready for each in completions(row["messages"], options.separator, options.stop)]


def _check_kind(row: Row, keys: tuple[str, ...], where: str) -> None:
    """Refuses rows of different keys: the format of a file is that of its first row."""
    if tuple(row) != keys:
        raise DataError(
            f"a row of {', '.join(row)} after rows of {', '.join(keys)}",
            where=where,
            expected="one kind of rows per output",
            fix="import these files into separate outputs",
        )
