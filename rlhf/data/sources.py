"""Data sources: reads a file or folder as records of one kind, with a report on the skipped rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

from rlhf.data.byte_streams import name_of
from rlhf.data.formats import FORMATS, described, parse, rename_hint, sniff
from rlhf.data.public_shapes import import_command, import_hint, public_shape
from rlhf.data.readers import Location, Row, locate, read_rows, sha256_of, usable
from rlhf.data.records import Demonstration, Prompt, Ranking, Record, demonstration_of, prompt_of
from rlhf.data.row_values import key_of, quoted_keys
from rlhf.errors import DataError

RecordT = TypeVar("RecordT", Demonstration, Ranking, Prompt)
OnBadRow = Literal["error", "skip"]
NUM_REASONS_KEPT = 5

# Formats that give each kind of record: its own formats, and richer ones by conversion.
_RANKING = ("ranking", "chosen-rejected")
_DEMONSTRATION = ("prompt-response", "prompt-completion", "instruction", "messages")
_FORMATS_FOR: dict[type[Record], tuple[str, ...]] = {
    Ranking: _RANKING,
    Demonstration: (*_DEMONSTRATION, *_RANKING),
    Prompt: ("prompt", *_DEMONSTRATION, *_RANKING),
}


@dataclass(frozen=True, slots=True)
class DataSource:
    """One file (JSONL, JSON array, CSV) or `datasets` folder (`folder#split` where it has splits).

    `name` goes into each record's source unless the row has its own (default: the file's name, no suffix);
    `limit` keeps the first so many usable records; `ignore` names keys that may stay unread although they change what
    a row means.
    """

    path: str
    format: str = "auto"
    name: str = ""
    limit: int | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format != "auto" and self.format not in FORMATS:
            expected = f"auto, or one of {described()}"
            raise DataError(f"format {self.format!r}", where=self.path, expected=expected)
        if self.limit is not None and self.limit < 1:
            raise DataError(f"limit {self.limit}", where=self.path, expected="at least 1, or none")


@dataclass(slots=True)
class SourceReport:
    """Counts of the rows of a source: num_rows = num_kept + num_skipped + num_tied.

    `num_converted` of the kept records were converted from a richer kind; `num_tied` are rankings in which all answers
    tie, skipped where a better answer is needed; `skipped` holds the first few reasons, with their lines; `unread`
    counts the rows with each key that the format does not read.
    """

    path: str
    format: str
    sha256: str
    num_rows: int = 0
    num_kept: int = 0
    num_skipped: int = 0
    num_converted: int = 0
    num_tied: int = 0
    skipped: list[str] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)

    def skip(self, error: DataError, line: int) -> None:
        """Counts a bad row, and keeps the reason of the first few."""
        self.num_skipped += 1
        if len(self.skipped) < NUM_REASONS_KEPT:
            self.skipped.append(f"{f'line {line}  {key_of(error)}'.rstrip()}: {error.problem}")

    def take_back(self, error: DataError, line: int) -> None:
        """Counts as bad a row that was counted as kept."""
        self.num_kept -= 1
        self.skip(error, line)


@dataclass(frozen=True, slots=True)
class SourceRecords(Generic[RecordT]):
    """The usable records of one source, in file order, with their lines and the report on all rows."""

    records: list[RecordT]
    lines: list[int]
    report: SourceReport


def read_records(
    source: DataSource,
    kind: type[RecordT],
    *,
    on_bad_row: OnBadRow = "error",
) -> SourceRecords[RecordT]:
    """Reads a source as records of one kind, converting them from a richer kind where the file has that.

    Raises DataError for a path, file or format that cannot be used, for a file without any usable row, and, with
    on_bad_row="error", for the first bad row. "skip" counts bad rows and keeps the first reasons.
    """
    if on_bad_row not in ("error", "skip"):
        raise DataError(f"on_bad_row {on_bad_row!r}", expected="error or skip")
    location = locate(source.path)
    report = SourceReport(source.path, source.format, sha256_of(location))
    records: list[RecordT] = []
    lines: list[int] = []
    for line, record in _usable_records(source, location, kind, on_bad_row, report):
        records.append(record)
        lines.append(line)
    if not records:
        raise nothing_usable(report)
    return SourceRecords(records, lines, report)


def require_usable(source: DataSource, kind: type[RecordT], *, on_bad_row: OnBadRow = "error") -> None:
    """Reads a source up to its first usable row, which takes no time however large the file is.

    Raises: DataError as `read_records`, for what is found so far.
    """
    report = SourceReport(source.path, source.format, "")
    records = _usable_records(source, locate(source.path), kind, on_bad_row, report)
    if next(records, None) is None:
        raise nothing_usable(report)


def _usable_records(
    source: DataSource, location: Location, kind: type[RecordT], on_bad_row: OnBadRow, report: SourceReport
) -> Iterator[tuple[int, RecordT]]:
    """(line, record) of every usable row; `report` counts all rows."""
    if source.format != "auto":
        _check_kind(source.format, kind, source.path)
    for line, row in read_rows(location):
        if report.num_kept == source.limit:
            break
        if report.format == "auto" and not isinstance(row, DataError):
            report.format = _sniffed(row, kind, source.path, line)
        report.num_rows += 1
        try:
            record = _record(row, source, kind, report)
        except DataError as error:
            if on_bad_row == "error":
                raise placed(error, f"{source.path}:{line}") from None
            report.skip(error, line)
            continue
        if record is not None:
            report.num_kept += 1
            yield line, record


def _sniffed(row: Mapping[str, Any], kind: type[Record], path: str, line: int) -> str:
    """The format of the first row, which is that of the whole file."""
    try:
        name = sniff(row)
    except DataError as error:
        raise placed(error, f"{path}:{line}", fix=import_hint(row, path)) from None
    _check_kind(name, kind, f"{path}:{line}", row)
    return name


def _check_kind(name: str, kind: type[Record], where: str, row: Mapping[str, Any] | None = None) -> None:
    if name in _FORMATS_FOR[kind]:
        return
    keys = f" (the row has {quoted_keys(row)})" if row else ""
    fix = rename_hint(row, _FORMATS_FOR[kind]) if row else ""
    if not fix and row and kind is Ranking and public_shape(row) in ("kto", "helpsteer", "hh"):
        fix = f"{import_command(row, where.rpartition(':')[0])} makes rankings of it"
    raise DataError(
        f"the format is {name}{keys}, which has no {kind.__name__}",
        where=where,
        expected=f"a file of {described(_FORMATS_FOR[kind])}",
        fix=fix or f"give a file in one of these formats for {kind.__name__}s",
    )


def _record(row: Row | DataError, source: DataSource, kind: type[RecordT], report: SourceReport) -> RecordT | None:
    """The record of one row; None for a ranking in which all answers tie, which is counted."""
    name = source.name or name_of(source.path)
    parsed = parse(usable(row), report.format, name, ignore=source.ignore, unread=report.unread)
    if isinstance(parsed, Ranking) and parsed.all_tied and kind is not Prompt:
        report.num_tied += 1
        return None
    record = parsed if isinstance(parsed, kind) else _converted(parsed, kind)
    report.num_converted += record is not parsed
    return cast(RecordT, record)


def _converted(record: Record, kind: type[Record]) -> Record:
    if kind is Demonstration and isinstance(record, Ranking):
        return demonstration_of(record)
    if kind is Prompt and not isinstance(record, Prompt):
        return prompt_of(record)
    # `messages` is the only format whose later rows can be of a poorer kind than the first.
    raise DataError("ends in a turn by user", where="key `messages`", expected="a last turn by assistant")


def placed(
    error: DataError, place: str, fix: str = 'correct the row, or skip bad rows with on_bad_row="skip"'
) -> DataError:
    """The error with file and line before its key, and `fix` where it has none of its own."""
    where = f"{place}  {key_of(error)}".rstrip()
    return DataError(error.problem, where=where, expected=error.expected, fix=error.fix or fix)


class ParsedRow(NamedTuple):
    """A row by its line, its record or why there is none, and the format of the file ("" before it is known)."""

    line: int
    row: Row
    record: Record | DataError
    format: str


def parsed_rows(path: str) -> Iterator[ParsedRow]:
    """Every row of a file with its record. The first row of a known format decides the format of the whole file.

    Raises: DataError for a file that cannot be read.
    """
    name = ""
    for line, row in read_rows(locate(path)):
        given: Row = {}
        try:
            given = usable(row)
            name = name or sniff(given)
            record: Record | DataError = parse(given, name, "")
        except DataError as error:
            record = error
        yield ParsedRow(line, given, record, name)


def nothing_usable(report: SourceReport) -> DataError:
    if not report.num_rows:
        return DataError("no rows", where=report.path, expected="at least one row")
    parts = [f"{report.num_skipped} bad", f"{report.num_tied} rankings in which all answers tie"]
    return DataError(
        f"none of {report.num_rows} rows can be used: {', '.join(parts)}",
        where=report.path,
        fix=f"the first: {report.skipped[0]}" if report.skipped else "rank at least two answers differently",
    )
