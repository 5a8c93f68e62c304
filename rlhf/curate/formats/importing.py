"""Chat logs and rows of public formats into one JSONL file that every stage reads.

What a file is shows in its first lines; every row that cannot be used is counted by its reason. Personal
information is masked unless the caller says otherwise, and the manifest tells how much of it there was.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rlhf.config.flags import flag
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
from rlhf.curate.kakao.reader import is_kakao
from rlhf.curate.kakao.turns import Chat, ChatOptions, conversations, open_chat
from rlhf.curate.output import Output, progress
from rlhf.curate.privacy import mask_personal, require_privacy
from rlhf.data.lines import encoding_of
from rlhf.data.readers import NumberedRow, locate, read_rows
from rlhf.errors import DataError

Row = dict[str, Any]
_TEXTS = ("content", "input", "prompt", "chosen", "rejected")
_REPEATED = re.compile(r"([ㄱ-ㅣ])\1{2,}")  # ㅋㅋㅋㅋ and ㅠㅠㅠ: many tokens that say little
_NAMES = {"PHONE": "phone numbers", "EMAIL": "e-mail addresses", "ADDRESS": "addresses", "ACCOUNT": "bank accounts"}


FORMATS = ("auto", "kakao", "openai", "messages", "alpaca", "hh", "csv")
STYLES = ("messages", "completion")
COLUMN_ROLES = ("prompt", "response", "input", "system", "chosen", "rejected")


def unescaped(text: str) -> str:
    """Text from a shell, which passes a typed \\n as two characters."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def parse_columns(text: str) -> dict[str, str]:
    """`prompt=질문,response=답변` as a mapping."""
    pairs = [part.partition("=") for part in text.split(",")]
    columns = {role.strip(): name.strip() for role, _, name in pairs}
    if not all(columns.values()) or not set(columns) <= set(COLUMN_ROLES):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not like prompt=질문,response=답변, of {', '.join(COLUMN_ROLES)}"
        )
    return columns


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What decides the rows.

    `style` "completion" writes {prompt, completion}, closed by `separator` and `stop`; both are also cut off the
    old openai rows that end in them. `columns` names the columns of a table: prompt, response, input, system,
    chosen, rejected. `mask` is what replaces personal information in a text and counts it; None leaves it in.
    """

    format: str = flag("auto", "format of the files (default: by their content)", choices=FORMATS)
    chat: ChatOptions = field(default_factory=ChatOptions)
    style: str = flag("messages", "rows of messages, or of prompt and completion", choices=STYLES)
    separator: str = flag("\n\n###\n\n", r"ends a prompt (default: \n\n###\n\n)", parse=unescaped)
    stop: str = flag("\n\n@@@", r"ends a completion (default: \n\n@@@)", parse=unescaped)
    columns: Mapping[str, str] = flag(
        {}, f"columns of a table: {', '.join(COLUMN_ROLES)}", metavar="ROLE=NAME,...", parse=parse_columns
    )
    mask: Callable[[str], tuple[str, dict[str, int]]] | None = mask_personal

    def recorded(self) -> dict[str, Any]:
        """For the manifest."""
        chat = {**asdict(self.chat), "gap": str(self.chat.gap)}
        return {
            "format": self.format,
            **chat,
            "style": self.style,
            **({"separator": self.separator, "stop": self.stop} if self.style == "completion" else {}),
            "columns": dict(self.columns),
            "personal information": "masked" if self.mask else "kept",
        }


def import_files(files: Sequence[str], out: Path, options: ImportOptions) -> Output:
    """Writes the rows of all `files` to `out`; the finished output, for its summary.

    Raises:
        DataError: before anything is written, for a missing file or package, a chat whose speaker to imitate is
            not named, a file of no known format; later for one that breaks off, for files that hold different
            kinds of rows, and when no row is left.
    """
    if options.mask is mask_personal:
        require_privacy("or --keep-pii to leave it in")
    sources = [_open(file, options) for file in files]
    with Output(out, command="data import", inputs=files, options=options.recorded()) as output:
        output.extra["formats"] = {source.name: source.format for source in sources}
        output.extra["columns"] = {source.name: source.columns for source in sources if source.columns}
        _Writer(output, options).write_all(sources)
    return output


@dataclass(frozen=True, slots=True)
class _Source:
    """A file whose format is known; `rows` yields (line, rows, or why there are none).

    `columns` says of a table what each column is taken for, None for those that are not used.
    """

    name: str
    format: str
    rows: Callable[[Counter[str]], Iterator[tuple[int, list[Row] | DataError]]]
    columns: dict[str, str | None] = field(default_factory=dict)


def _open(file: str, options: ImportOptions) -> _Source:
    location = locate(file)
    path = location.path
    if options.format == "kakao" or (options.format == "auto" and path.is_file() and is_kakao(path)):
        return _Source(file, "kakao", partial(_chat_rows, open_chat(path, options.chat)))
    if path.suffix.lower() == ".txt":
        raise DataError(
            "plain text that is no chat of KakaoTalk",
            where=file,
            expected="KakaoTalk (.txt, .csv), JSONL, a JSON array or CSV",
            fix="make it a CSV with a header, e.g. prompt,response",
        )
    encoding = encoding_of(path) if path.suffix.lower() == ".csv" else "utf-8"
    read = partial(read_rows, location, encoding)
    first, line = _first(read(), file)
    name = options.format if options.format != "auto" else "csv" if options.columns else recognise_row(first)
    columns: dict[str, str | None] = {}
    try:
        convert = _converter(name, first, options)
        if name == "csv":
            taken = {column: role for role, column in columns_of(list(first), options.columns).items()}
            columns = {column: taken.get(column) for column in first}
    except DataError as error:
        where = f"{file}:{1 if path.suffix.lower() == '.csv' else line}"
        raise DataError(error.problem, where=where, expected=error.expected, fix=error.fix) from None
    return _Source(file, name, partial(_converted_rows, read, convert), columns)


def _first(rows: Iterator[NumberedRow], file: str) -> tuple[Row, int]:
    """The first row that can be read, whose keys tell the format; else the first error."""
    problem = DataError("no rows", where=file, expected="at least one row")
    for index, (line, row) in enumerate(rows):
        if not isinstance(row, DataError):
            return row, line
        problem = row if index == 0 else problem
        if index == 100:
            break
    raise problem


def _converter(name: str, first: Row, options: ImportOptions) -> Callable[[Row], list[Row]]:
    if name == "csv":
        return partial(from_columns, columns=columns_of(list(first), options.columns))
    if options.columns:
        raise DataError(f"--columns with --format {name}", fix="leave one of them out")
    if name == "openai":
        return partial(from_openai, separator=options.separator, stop=options.stop)
    return {"messages": from_messages, "alpaca": from_alpaca, "hh": from_hh}[name]


def _chat_rows(chat: Chat, counts: Counter[str]) -> Iterator[tuple[int, list[Row] | DataError]]:
    for line, messages in conversations(chat, counts):
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
        if isinstance(row, DataError):
            yield line, row
            continue
        identity = row.get("id")
        if isinstance(identity, str | int):
            digest = hashlib.blake2b(str(identity).encode("utf-8", "replace"), digest_size=8).digest()
            if digest in seen:
                yield line, DataError("an id that an earlier row has", where=f"id {identity}")
                continue
            seen.add(digest)
        try:
            yield line, convert(row)
        except DataError as error:
            yield line, error


class _Writer:
    """Writes the rows of all sources, masked and styled, and counts what is left out."""

    def __init__(self, output: Output, options: ImportOptions) -> None:
        self.output, self.options = output, options
        self.keys: tuple[str, ...] = ()
        self.first_problem = ""

    def write_all(self, sources: Sequence[_Source]) -> None:
        for source in sources:
            counts: Counter[str] = Counter()
            for line, rows in progress(source.rows(counts), Path(source.name).name):
                self._write(source, line, rows)
            for name, number in counts.items():
                if number:
                    self.output.count(name, number)
        if not self.output.kept:
            files = ", ".join(source.name for source in sources)
            dropped = "; ".join(f"{number} {reason}" for reason, number in self.output.dropped.items())
            fix = f"the first: {self.first_problem}" if self.first_problem else ""
            raise DataError(f"no row is left: {dropped or 'there was none'}", where=files, fix=fix)

    def _write(self, source: _Source, line: int, rows: list[Row] | DataError) -> None:
        try:
            if isinstance(rows, DataError):
                raise rows
            for row in rows:
                _refuse_nul(row)
            rows = [styled for row in rows for styled in self._styled(self._masked(row))]
        except DataError as error:
            place = f"{source.name}:{line}"
            self.first_problem = self.first_problem or f"{place}: {error.problem}"
            self.output.drop(_reason(error), f"{place} {error.where.removeprefix(place)} {error.problem}")
            return
        for row in rows:
            self._check_kind(row, f"{source.name}:{line}")
            self.output.write({**row, "source": Path(source.name).stem})

    def _masked(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self._masked(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [self._masked(part) for part in value]
        if key not in _TEXTS or self.options.mask is None:
            return value
        text, counts = self.options.mask(value)
        for label, number in counts.items():
            self.output.count(f"masked {_NAMES.get(label, label)}", number)
        return text

    def _styled(self, row: Row) -> list[Row]:
        if self.options.style != "completion":
            return [row]
        if "messages" not in row:
            raise DataError("holds no single answer to write as a completion", fix="--style messages")
        return completions(row["messages"], self.options.separator, self.options.stop)

    def _check_kind(self, row: Row, where: str) -> None:
        """Files are told apart by the first row's keys, so one file holds one kind."""
        keys = tuple(row)
        self.keys = self.keys or keys
        if keys != self.keys:
            raise DataError(
                f"a row of {', '.join(keys)} after rows of {', '.join(self.keys)}",
                where=where,
                expected="one kind of rows in one output",
                fix="import these files into files of their own",
            )


def _refuse_nul(value: Any) -> None:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_nul(part)
    elif isinstance(value, str) and "\0" in value:
        raise DataError("a text with a NUL byte")


def _reason(error: DataError) -> str:
    """An error's problem without what differs from row to row."""
    key = re.sub(r"\[\d+\]", "[]", error.where) + " " if error.where.startswith("key ") else ""
    problem = error.problem.partition(";")[0].partition(": ")[0]
    return f"{key}{re.sub(r'0x[0-9a-f]{2} |(?<= of )[0-9]+$|^[0-9]+ ', '', problem)}"
