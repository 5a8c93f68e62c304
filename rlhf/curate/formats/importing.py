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
from rlhf.curate.formats.answered import columns_of, completions
from rlhf.curate.formats.judged import Judged, good_answers, rankings
from rlhf.curate.formats.persona import with_persona
from rlhf.curate.formats.registry import Choices, Converter, converter
from rlhf.curate.output import Output, manifest_path, progress
from rlhf.curate.privacy import mask_personal, require_privacy
from rlhf.curate.row_texts import texts_of, with_texts_changed
from rlhf.data.byte_streams import inner_suffix, name_of
from rlhf.data.lines import encoding_of
from rlhf.data.public_shapes import public_shape
from rlhf.data.readers import SUFFIXES, NumberedRow, Row, locate, read_rows, usable
from rlhf.data.row_keys import check_unread, unread_summary
from rlhf.data.row_values import key_of, reason_of
from rlhf.errors import DataError

ROLES = ("prompt", "response", "input", "system", "history", "chosen", "rejected")
Format = Literal[
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
    "kto",
    "ultrafeedback",
    "helpsteer",
    "nectar",
    "shp",
    "pku",
    "arena",
    "stack-exchange",
    "csv",
]
_REPEATED = re.compile(r"([ㄱ-ㅣ])\1{2,}")  # ㅋㅋㅋㅋ and ㅠㅠㅠ: many tokens, little meaning
_NAMES = {"PHONE": "phone numbers", "EMAIL": "e-mail addresses", "ADDRESS": "addresses", "ACCOUNT": "bank accounts"}
_KINDS = {
    "messages": "messages",
    "chosen": "prompt, chosen, rejected",
    "responses": "prompt, responses",
    "completion": "prompt, completion",
    "prompt": "prompt",
}
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
    format: Format = flag("auto", "format of the files (default: recognised by their content)")
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
    by: str = flag(
        "",
        "judgement that ranks the answers, of helpsteer (default: helpfulness), ultrafeedback (overall_score) and pku "
        "(better)",
        metavar="NAME",
    )
    good: float | None = flag(
        None,
        "of answers that are judged one by one (kto, helpsteer), write those of at least this score as demonstrations, "
        "instead of rankings; kto: 1",
        metavar="SCORE",
    )
    ignore: tuple[str, ...] = flag(
        (), "leave out this key although it changes what a row means; may be repeated", metavar="KEY"
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
            **({"by": self.by} if self.by else {}),
            **({"good": self.good} if self.good is not None else {}),
            **({"ignore": self.ignore} if self.ignore else {}),
            "personal information": "kept" if self.keep_pii else "masked",
        }


def run(options: ImportOptions) -> int:
    """Imports the files and prints the summary, and which column of a table holds what."""
    output = import_files(options)
    sys.stdout.write(f"{output.summary()}\nmanifest: {manifest_path(output.path)}\n")
    for file, unread in output.extra["keys not read"].items():
        sys.stdout.write(f"{file}: {unread_summary(unread)}\n")
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
        output.extra["keys not read"] = {}
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

    `columns` gives the role of each column of a table, None for unused ones; `unread` counts the rows with each key
    that is not read, once all rows are. `guesses` receives what had to be decided by the form of a text while `rows`
    runs.
    """

    name: str
    format: str
    rows: Callable[[Counter[str]], Iterator[tuple[int, list[Row] | DataError]]]
    columns: dict[str, str | None] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
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
            expected=f"KakaoTalk (.txt, .csv, .eml), LINE (.txt), or rows: {', '.join(SUFFIXES)}",
            fix="make it a CSV with a header, e.g. prompt,response",
        )
    is_text_table = inner_suffix(path) in (".csv", ".tsv")
    encoding = encoding_of(path) if is_text_table else "utf-8"
    read = partial(read_rows, location, encoding)
    first, line = _first(read(), file)
    name = options.format if options.format != "auto" else "csv" if options.columns else public_shape(first)
    try:
        if options.columns and name != "csv":
            raise DataError(f"--columns with --format {name}", fix="drop one of them")
        columns = columns_of(list(first), options.columns) if name == "csv" else {}
        chosen = converter(name, first, Choices(columns, options.separator, options.stop, options.by))
    except DataError as error:
        where = f"{file}:{1 if is_text_table else line}"
        raise DataError(error.problem, where=where, expected=error.expected, fix=error.fix) from None
    roles = {column: role for role, column in columns.items()}
    shown = {column: roles.get(column) for column in first} if name == "csv" else {}
    unread: dict[str, int] = {}
    rows = partial(_converted_rows, read, chosen, f"--format {name}", options, unread)
    return _Source(file, name, rows, shown, unread)


def _first(rows: Iterator[NumberedRow], file: str) -> tuple[Row, int]:
    """The first row that can be read, which decides the format; raises the first error where there is none."""
    problem = DataError("no rows", where=file, expected="at least one row")
    for index, (line, row) in enumerate(islice(rows, 101)):
        if not isinstance(row, DataError):
            return row, line
        problem = row if index == 0 else problem
    raise problem


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
    read: Callable[[], Iterator[NumberedRow]],
    chosen: Converter,
    name: str,
    options: ImportOptions,
    unread: dict[str, int],
    counts: Counter[str],
) -> Iterator[tuple[int, list[Row] | DataError]]:
    """(line, rows) of every row, or of every prompt where rows hold one judged answer each."""
    judged: list[tuple[int, Judged | DataError]] = []
    seen: set[bytes] = set()
    for line, given in read():
        try:
            row = usable(given)
            _check_new(row, seen)
            fix = "drop the key where it does not matter, or leave it out: --ignore KEY"
            ignore = (*options.ignore, *row) if options.columns else options.ignore  # columns are chosen by name
            check_unread(row, chosen.reads, name, ignore=ignore, counts=unread, fix=fix)
            converted = chosen.convert(row, counts)
        except DataError as error:
            yield line, error
            continue
        if isinstance(converted, Judged):
            judged.append((line, converted))
        else:
            yield line, converted
    yield from rankings(judged) if options.good is None else good_answers(judged, options.good)


def _check_new(row: Row, seen: set[bytes]) -> None:
    """Refuses a row whose `id` an earlier row has."""
    identity = row.get("id")
    if isinstance(identity, str | int):
        digest = hashlib.blake2b(str(identity).encode("utf-8", "replace"), digest_size=8).digest()
        if digest in seen:
            raise DataError("an id of an earlier row", where=f"id {identity}")
        seen.add(digest)


def _write_all(sources: Sequence[_Source], output: Output, options: ImportOptions) -> None:
    """Writes the rows of all sources, masked and styled, and counts the dropped ones."""
    first: DataError | None = None
    kind = ""
    for source in sources:
        counts: Counter[str] = Counter()
        for line, converted in progress(source.rows(counts), Path(source.name).name):
            place = f"{source.name}:{line}"
            try:
                rows = _ready(converted, output, options)
            except DataError as error:
                named = f"{place} {key_of(error)}".rstrip()
                first = first or DataError(f"{named}: {error.problem}", fix=error.fix)
                output.drop(reason_of(error), f"{place} {key_of(error)} {error.problem}")
                continue
            for row in rows:
                kind = kind or _kind(row)
                _check_kind(row, kind, place)
                output.write({**row, "source": name_of(source.name)})
        output.count_all(counts)
        if source.unread:
            output.extra["keys not read"][source.name] = source.unread
    if not output.kept:
        files = ", ".join(source.name for source in sources)
        dropped = "; ".join(f"{number} {reason}" for reason, number in output.dropped.items())
        fix = f"the first: {first.problem}{f' ({first.fix})' if first.fix else ''}" if first else ""
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


def _kind(row: Row) -> str:
    """The keys that tell what a row is: a conversation, a pair, a ranking or a prompt."""
    return next(keys for mark, keys in _KINDS.items() if mark in row)


def _check_kind(row: Row, kind: str, where: str) -> None:
    """Refuses rows of different kinds: the format of a file is that of its first row."""
    if _kind(row) != kind:
        raise DataError(
            f"a row of {_kind(row)} after rows of {kind}",
            where=where,
            expected="one kind of rows per output",
            fix="import these files into separate outputs",
        )
