"""Reads KakaoTalk exports as events: PC, Android and iOS text, e-mailed or joined to one another, and macOS CSV.

Exports escape nothing, so some cases are decided by rule, and the event says by which:
- a line inside a message of the PC app that has the whole form of a notice (민수님이 나갔습니다.) is one, and so is
  what follows it up to the next message;
- a message that only says 사진 is a picture, and likewise for what else the apps print in place of something;
- a message of exactly the length at which Android cuts is a cut one.
The phone apps end a message with CRLF and print line ends inside it as LF, so text inside a message is never taken
for a header there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path

from rlhf.curate.chats.events import ChatEvent
from rlhf.curate.chats.export_text import TextLine, composed, text_lines
from rlhf.curate.chats.kakao.lines import (
    Header,
    csv_moment,
    day_of,
    is_bot,
    kind_of,
    moment_of,
    notice_of,
    notice_subject,
    pc_day,
    pc_header,
    phone_header,
)
from rlhf.curate.chats.kakao.names import SEPARATOR, Names, split
from rlhf.curate.chats.kakao.parts import ANY_DAY, Part, app_of, parts_of
from rlhf.data.lines import csv_records, encoding_of
from rlhf.errors import DataError

_HEAD = 400  # lines within which the format of an export is recognised
_CUT = 500  # characters after which Android cuts a message
_SUFFIXES = (".txt", ".eml")
_BOT = "messages of KakaoTalk's own bots"
_CUT_KIND = f"messages that end at the app's limit of {_CUT} characters"


def is_kakao(path: Path) -> bool:
    """Whether a .txt, .eml or .csv file starts like an export of KakaoTalk. Raises as `read_kakao`."""
    if path.suffix.lower() == ".csv":
        return _is_kakao_csv(path)
    return path.suffix.lower() in _SUFFIXES and app_of(list(islice(text_lines(path), _HEAD))) is not None


def read_kakao(path: Path, known: Collection[str] = ()) -> Iterator[ChatEvent | DataError]:
    """The events of an export, in its order; an unreadable one is yielded as its error.

    Args:
        path: file to read.
        known: names that are spoken for, e.g. of the speaker to imitate; they may hold what else ends a name.

    Raises:
        DataError: with file and line, for a file that is not an export, bytes that are not text, open quotes.
    """
    if path.suffix.lower() == ".csv":
        return _checked(_read_csv(path, encoding_of(path)), path)
    parts = list(parts_of(list(text_lines(path))))
    if not any(part.app for part in parts):
        raise DataError(
            "no line starts a message of KakaoTalk",
            where=str(path),
            expected="a chat exported by KakaoTalk for PC, Android, iOS (.txt) or macOS (.csv)",
            fix="export the chat again (채팅방 설정 > 대화 내용 내보내기), or name the right --format",
        )
    return _checked(_read_parts(parts, path, known), path)


def _checked(events: Iterator[ChatEvent | DataError], path: Path) -> Iterator[ChatEvent | DataError]:
    for event in events:
        if isinstance(event, ChatEvent) and "\0" in event.text + event.sender:
            yield DataError("a message with a NUL byte", where=f"{path}:{event.line}")
        else:
            yield event


def _read_parts(parts: Sequence[Part], path: Path, known: Collection[str]) -> Iterator[ChatEvent | DataError]:
    moment = datetime.combine(ANY_DAY, time())
    for index, part in enumerate(parts):
        if index and part.header:
            text = "\n".join(line.text for line in part.header).strip()
            yield ChatEvent(moment, "system", "", text, part.header[0].number, "headers of joined exports")
        read = _read_pc(part, path) if part.app == "pc" else _read_phone(part, known)
        for event in read:
            if isinstance(event, ChatEvent):
                moment = event.moment
            yield event


class _Pending:
    """A message or notice that may have further lines."""

    def __init__(self, header: Header, number: int, guess: str = "") -> None:
        self.header, self.number, self.guess = header, number, guess
        self.lines = [header.text]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def event(self) -> ChatEvent:
        header, text = self.header, self.text.rstrip("\n")
        if not header.sender:
            return ChatEvent(header.moment, "system", notice_subject(text), text, self.number, self.guess)
        if is_bot(header.sender):
            return ChatEvent(header.moment, "system", header.sender, text, self.number, _BOT)
        kind, label = kind_of(text)
        return ChatEvent(header.moment, kind, header.sender, text, self.number, label or self.guess)


# Text of the PC app


def _read_pc(part: Part, path: Path) -> Iterator[ChatEvent | DataError]:
    pending: _Pending | None = None
    day: date | None = None
    moment = datetime.combine(ANY_DAY, time())
    for number, line, _, _ in part.lines:
        if new_day := pc_day(line):
            day, moment = new_day, datetime.combine(new_day, time())
            following = None
        elif day is None:
            if pc_header(line, ANY_DAY):
                fix = "the start of the export is missing: export the chat again"
                yield DataError("a message before the first date", where=f"{path}:{number}", fix=fix)
            continue
        elif header := pc_header(line, day):
            following, moment = _Pending(header, number), header.moment
        elif notice := notice_of(line):
            # Only what follows a message, or another guess, could be a person's.
            doubtful = pending is not None and bool(pending.header.sender or pending.guess)
            following = _Pending(Header(moment, "", line), number, f"notices: {notice}" if doubtful else "")
        else:
            if pending is not None:
                pending.lines.append(line)
            continue
        if pending is not None:
            yield pending.event()
        pending = following
    if pending is not None:
        yield pending.event()


# Text of the phone apps


def _read_phone(part: Part, known: Collection[str]) -> Iterator[ChatEvent]:
    records = list(_phone_records(part.lines))
    headers = [(number, record, phone_header(record.partition("\n")[0])) for number, record in records]
    names = Names((header.rest for _, _, header in headers if header and not header.is_notice), {*known, part.partner})
    waiting: list[_Pending] = []
    for number, record, header in headers:
        if header is None:
            if waiting:
                waiting[-1].lines.append(record)
            continue
        if waiting:
            _cut_date_line(waiting[-1], header.moment)
        _, newline, more = record.partition("\n")
        waiting.append(_phone_message(header.moment, header.rest, header.is_notice, names, number))
        waiting[-1].lines[0] += newline + more
    limit = _limit([pending.text for pending in waiting if pending.header.sender])
    for pending in waiting:
        event = pending.event()
        cut = event.kind == "message" and _length(pending.text) == limit
        yield event if not cut else ChatEvent(event.moment, "cut", event.sender, event.text, event.line, _CUT_KIND)


def _phone_message(moment: datetime, rest: str, is_notice: bool, names: Names, number: int) -> _Pending:
    if is_notice or SEPARATOR not in f"{rest} ":
        return _Pending(Header(moment, "", rest), number)
    kind = notice_of(rest)
    if kind and not names.speaks(split(rest)[0]):
        return _Pending(Header(moment, "", rest), number, f"notices: {kind}")
    sender, text, guessed = names.spoken(rest)
    return _Pending(Header(moment, sender, text), number, 'where a name with " : " ends' if guessed else "")


def _limit(texts: Sequence[str]) -> int:
    """The length at which the app cut, -1 where a longer message shows that it did not."""
    return _CUT if texts and max(map(_length, texts)) == _CUT else -1


def _length(text: str) -> int:
    """Characters as Android counts them: one beyond U+FFFF counts as two."""
    return len(text) + sum(character > "\uffff" for character in text)


def _phone_records(lines: Sequence[TextLine]) -> Iterator[tuple[int, str]]:
    """(line, record): text up to CRLF where the export has CRLF, else a line."""
    end = "\r\n" if _ends_in_crlf(lines) else "\n"
    start, parts = 1, list[str]()
    for line in lines:
        if not parts:
            start = line.number
        if line.end == end or not line.end:
            yield start, "".join([*parts, line.text])
            parts = []
        else:
            parts.append(f"{line.text}\n")
    if parts:
        yield start, "".join(parts)


def _ends_in_crlf(lines: Sequence[TextLine]) -> bool:
    """Whether the line before the first message ends in CRLF (a message may continue after its first line)."""
    first = next((index for index, line in enumerate(lines) if phone_header(line.text)), 0)
    return lines[max(first - 1, 0)].end == "\r\n"


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
    return [cell.strip("\ufeff \t").lower() for cell in cells] == ["date", "user", "message"]


def _read_csv(path: Path, encoding: str) -> Iterator[ChatEvent | DataError]:
    moment = datetime.combine(ANY_DAY, time())
    for index, (line, cells) in enumerate(csv_records(path, encoding)):
        if _is_header(cells):
            if index:
                yield ChatEvent(moment, "system", "", ",".join(cells), line, "headers of joined exports")
            continue
        found = csv_moment(cells[0].lstrip("\ufeff"))
        if len(cells) != 3 or found is None:
            expected = '2022-12-17 13:55:24,"이름","메시지"'
            yield DataError("not a date, a name and a message", where=f"{path}:{line}", expected=expected)
            continue
        moment = found
        yield _csv_event(moment, composed(cells[1]), composed(cells[2]), line)


def _csv_event(moment: datetime, sender: str, text: str, line: int) -> ChatEvent:
    """A notice is in a row of whoever it is about; 민수님이 나갔습니다. by somebody else is a message about it."""
    notice, kind, label = notice_of(text), *kind_of(text)
    by_app = notice and (notice_subject(text) in ("", sender) or text.endswith("님을 내보냈습니다."))
    if not sender:
        return ChatEvent(moment, "system", "", text, line)
    if by_app and kind == "message":
        return ChatEvent(moment, "system", sender, text, line, f"notices: {notice}")
    if is_bot(sender):
        return ChatEvent(moment, "system", sender, text, line, _BOT)
    return ChatEvent(moment, kind, sender, text, line, label)
