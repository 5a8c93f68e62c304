"""Reads KakaoTalk exports as events: PC, Android and iOS text, macOS CSV.

Exports escape nothing, so two cases are decided by rule. A line inside a message of the PC app that looks like a
notice (민수님이 나갔습니다.) is one if it names a speaker of the file, or a name without a space. A message that only
says 사진 is a picture. The phone apps end a message with CRLF and print line ends inside it as LF, so text inside a
message is never taken for a header there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path

from rlhf.curate.kakao.lines import (
    Header,
    Kind,
    csv_moment,
    day_of,
    is_room_notice,
    kind_of,
    moment_of,
    notice_subject,
    pc_day,
    pc_header,
    phone_header,
)
from rlhf.data.lines import csv_records, decoded_lines, encoding_of
from rlhf.errors import DataError

_HEAD = 400  # lines within which the format of an export is recognised
_LONGEST_NAME = 20  # characters; KakaoTalk's own limit
_ANY_DAY = date(2000, 1, 1)  # where only the form of a line matters


@dataclass(frozen=True, slots=True)
class ChatEvent:
    """One message or notice.

    `moment` has seconds only in CSV exports; a notice of the PC app has the moment of the message before it.
    The `sender` of a notice is the person it is about, or "". `line` is the first line of the event.
    """

    moment: datetime
    kind: Kind
    sender: str
    text: str
    line: int


def is_kakao(path: Path) -> bool:
    """Whether a .txt or .csv file starts like an export of KakaoTalk. Raises as `read_kakao`."""
    if path.suffix.lower() == ".csv":
        return _is_kakao_csv(path)
    return path.suffix.lower() == ".txt" and _app(path, encoding_of(path)) is not None


def read_kakao(path: Path) -> Iterator[ChatEvent | DataError]:
    """The events of an export, in its order; an unreadable one is yielded as its error.

    Raises:
        DataError: with file and line, for a file that is not an export, bytes that are not text, open quotes.
    """
    encoding = encoding_of(path)
    if path.suffix.lower() == ".csv":
        return _without_nul(_read_csv(path, encoding), path)
    app = _app(path, encoding)
    if app is None:
        raise DataError(
            "no line starts a message of KakaoTalk",
            where=str(path),
            expected="a chat exported by KakaoTalk for PC, Android, iOS (.txt) or macOS (.csv)",
            fix="export the chat again (채팅방 설정 > 대화 내용 내보내기), or name the right --format",
        )
    return _without_nul(_read_pc(path, encoding) if app == "pc" else _read_phone(path, encoding), path)


def _without_nul(events: Iterator[ChatEvent | DataError], path: Path) -> Iterator[ChatEvent | DataError]:
    for event in events:
        if isinstance(event, ChatEvent) and "\0" in event.text + event.sender:
            yield DataError("a message with a NUL byte", where=f"{path}:{event.line}")
        else:
            yield event


def _app(path: Path, encoding: str) -> str | None:
    """ "pc" or "phone", by the first line that has the form of either."""
    for _, raw in islice(decoded_lines(path, encoding), _HEAD):
        line = raw.rstrip("\r\n")
        if pc_day(line) or pc_header(line, _ANY_DAY):
            return "pc"
        if phone_header(line):
            return "phone"
    return None


# Text of the PC app


def _read_pc(path: Path, encoding: str) -> Iterator[ChatEvent | DataError]:
    names = _pc_names(path, encoding)
    pending: _Pending | None = None
    day: date | None = None
    for number, raw in decoded_lines(path, encoding):
        line = raw.rstrip("\r\n") if raw.endswith("\n") else raw
        if new_day := pc_day(line):
            day = new_day
            yield from _finished(pending)
            pending = None
            moment = datetime.combine(day, time())
        elif day is None:
            if pc_header(line, _ANY_DAY):
                fix = "the start of the export is missing: export the chat again"
                yield DataError("a message before the first date", where=f"{path}:{number}", fix=fix)
        elif header := pc_header(line, day):
            yield from _finished(pending)
            pending, moment = _Pending(header, number), header.moment
        elif (subject := _pc_notice(line, names)) is not None:
            yield from _finished(pending)
            pending = _Pending(Header(moment, "", line), number, subject)
        elif pending is not None:
            pending.lines.append(line)
    yield from _finished(pending)


def _pc_names(path: Path, encoding: str) -> frozenset[str]:
    headers = (pc_header(raw.rstrip("\r\n"), _ANY_DAY) for _, raw in decoded_lines(path, encoding))
    return frozenset(header.sender for header in headers if header)


def _pc_notice(line: str, names: frozenset[str]) -> str | None:
    """The person of a notice, "" for one about the room; None for a line of a message."""
    if is_room_notice(line):
        return ""
    subject = notice_subject(line)
    if subject is None or subject in names:
        return subject
    return subject if len(subject) <= _LONGEST_NAME and " " not in subject else None


class _Pending:
    """A message that may have further lines."""

    def __init__(self, header: Header, number: int, subject: str = "") -> None:
        self.header, self.number, self.subject = header, number, subject
        self.lines = [header.text]


def _finished(pending: _Pending | None) -> Iterator[ChatEvent]:
    if pending is None:
        return
    header, text = pending.header, "\n".join(pending.lines)
    if header.sender:
        yield ChatEvent(header.moment, kind_of(text), header.sender, text, pending.number)
    else:
        subject = pending.subject or notice_subject(text) or ""
        yield ChatEvent(header.moment, "system", subject, text, pending.number)


# Text of the phone apps


def _read_phone(path: Path, encoding: str) -> Iterator[ChatEvent | DataError]:
    pending: _Pending | None = None
    for number, record in _phone_records(path, encoding):
        first, newline, rest = record.partition("\n")
        header = phone_header(first)
        if header is not None:
            if pending is not None:
                _cut_date_line(pending, header.moment)
            yield from _finished(pending)
            pending = _Pending(header._replace(text=header.text + newline + rest), number)
        elif pending is not None:
            pending.lines.append(record)
    yield from _finished(pending)


def _phone_records(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """(line, record): text up to CRLF where the export has CRLF, else a line."""
    end = "\r\n" if _ends_in_crlf(path, encoding) else "\n"
    start = 1
    parts: list[str] = []
    for number, line in decoded_lines(path, encoding):
        if not parts:
            start = number
        parts.append(line)
        if line.endswith(end):
            yield start, "".join(parts).removesuffix(end)
            parts = []
    if parts:
        yield start, "".join(parts)


def _ends_in_crlf(path: Path, encoding: str) -> bool:
    """Whether the line before the first message ends in CRLF (a message may continue after its first line)."""
    before = ""
    for _, line in decoded_lines(path, encoding):
        if phone_header(line.rstrip("\r\n")):
            return before.endswith("\r\n") if before else line.endswith("\r\n")
        before = line
    return False


def _cut_date_line(pending: _Pending, following: datetime) -> None:
    """Removes from the end of a message the blank line and the date before the first message of another day."""
    lines = pending.lines
    if len(lines) < 2 or pending.header.moment.date() == following.date():
        return
    if day_of(lines[-1]) == following.date() or moment_of(lines[-1]) == following:
        lines.pop()
        if len(lines) > 1 and not lines[-1]:
            lines.pop()


# CSV


def _is_kakao_csv(path: Path) -> bool:
    for _, cells in islice(csv_records(path, encoding_of(path)), 1):
        return _is_header(cells) or (len(cells) == 3 and csv_moment(cells[0]) is not None)
    return False


def _is_header(cells: list[str]) -> bool:
    return [cell.strip().lower() for cell in cells] == ["date", "user", "message"]


def _read_csv(path: Path, encoding: str) -> Iterator[ChatEvent | DataError]:
    for index, (line, cells) in enumerate(csv_records(path, encoding)):
        if index == 0 and _is_header(cells):
            continue
        moment = csv_moment(cells[0])
        if len(cells) != 3 or moment is None:
            expected = '2022-12-17 13:55:24,"이름","메시지"'
            yield DataError("not a date, a name and a message", where=f"{path}:{line}", expected=expected)
            continue
        _, sender, text = cells
        kind: Kind = "system" if _is_csv_notice(text, sender) else kind_of(text)
        yield ChatEvent(moment, kind, sender, text, line)


def _is_csv_notice(text: str, sender: str) -> bool:
    """A notice names the sender of its row; 민수님이 나갔습니다. by somebody else is a message about it."""
    return not sender or is_room_notice(text) or notice_subject(text) == sender
