"""Parses single lines of a KakaoTalk export: dates, message headers, notices of the room, placeholders.

The phone apps print `2023년 5월 10일 오후 1:23, 이름 : 말`, the PC app one line per day and `[이름] [오후 1:23] 말`.
Korean and English, 12 and 24 hours. Names may contain colons and brackets, so a name ends at the first delimiter
after which the rest of the pattern matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, time
from typing import Literal, NamedTuple

Kind = Literal["message", "media", "deleted", "system"]

_GAP = r"[ \u00a0\u202f]?"  # newer iOS writes a narrow space before AM and PM
_CLOCK = (
    rf"(?:(?P<before>오전|오후|AM|PM|am|pm){_GAP})?(?P<hour>\d{{1,2}}):(?P<minute>\d{{2}})(?::(?P<second>\d{{2}}))?"
    rf"(?:{_GAP}(?P<after>AM|PM|am|pm))?"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ENGLISH_DAY = r"(?P<name>[A-Z][a-z]{2,8})\.? (?P<day>\d{1,2}), (?P<year>\d{4})"
_NUMBERS = r"(?P<year>\d{4})%s(?P<month>\d{1,2})%s(?P<day>\d{1,2})%s"
_KOREAN_DAY, _DOTTED_DAY = _NUMBERS % ("년 ", "월 ", "일"), _NUMBERS % (r"\. ?", r"\. ?", r"\.")

_STAMPS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_KOREAN_DAY} {_CLOCK}",
        rf"{_DOTTED_DAY} ?{_CLOCK}",
        rf"{_ENGLISH_DAY}(?:,| at) {_CLOCK}",
        rf"{_CLOCK}, {_ENGLISH_DAY}",
    )
)
_WEEKDAYS = r"(?:월|화|수|목|금|토|일)요일"
_DAYS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_KOREAN_DAY} {_WEEKDAYS}",
        rf"{_DOTTED_DAY} {_WEEKDAYS}",
        rf"[A-Z][a-z]+day, {_ENGLISH_DAY}",
    )
)
_CSV_DAY = _NUMBERS % ("[-./] ?", "[-./] ?", r"\.?")
_CSV_STAMP = re.compile(rf"{_CSV_DAY}[ T]{_CLOCK}")  # 2022-12-17 13:55:24, 2026.2.19 15:00, 2026. 2. 19. 오후 3:00
_PC_DAY = re.compile(r"-{5,} (?P<day>.+?) -{5,}")
_PC_MESSAGE = re.compile(rf"\[(?P<sender>[^\n]*?)\] \[{_CLOCK}\](?: (?P<text>.*))?", re.DOTALL)


class Header(NamedTuple):
    """The first line of a message or notice; `sender` is empty for a notice."""

    moment: datetime
    sender: str
    text: str


def day_of(line: str) -> date | None:
    """The day of a line with nothing but a date, as the apps print before a day's messages; else None."""
    match = _first_match(_DAYS, line)
    return _day(match) if match else None


def moment_of(line: str) -> datetime | None:
    """The moment of a line with nothing else (Android prints one before a day's messages); else None."""
    match = _first_match(_STAMPS, line)
    return _moment(match) if match else None


def _first_match(patterns: Iterable[re.Pattern[str]], line: str) -> re.Match[str] | None:
    return next(filter(None, (pattern.fullmatch(line) for pattern in patterns)), None)


def phone_header(line: str) -> Header | None:
    """The header in a line of Android or iOS that starts a message or a notice; else None."""
    for pattern in _STAMPS:
        match = pattern.match(line)
        moment = _moment(match) if match else None
        if match is None or moment is None:
            continue
        rest = line[match.end() :]
        if rest.startswith(": "):
            return Header(moment, "", rest[2:])
        if rest.startswith(", "):
            sender, separator, text = f"{rest[2:]} ".partition(" : ")  # an empty message may have lost its space
            return Header(moment, sender, text[:-1]) if separator else Header(moment, "", rest[2:])
    return None


def pc_day(line: str) -> date | None:
    """The day in a dashed line of the PC app; else None."""
    match = _PC_DAY.fullmatch(line)
    return day_of(match["day"]) if match else None


def pc_header(line: str, day: date) -> Header | None:
    """The header in a line of the PC app that starts a message (a notice, if the name is empty); else None."""
    match = _PC_MESSAGE.fullmatch(line)
    clock = _clock(match) if match else None
    if match is None or clock is None:
        return None
    return Header(datetime.combine(day, clock), match["sender"], match["text"] or "")


def csv_moment(cell: str) -> datetime | None:
    """The moment in the first column of a CSV export; None for anything else."""
    match = _CSV_STAMP.fullmatch(cell.strip())
    return _moment(match) if match else None


def _moment(match: re.Match[str]) -> datetime | None:
    day, clock = _day(match), _clock(match)
    return datetime.combine(day, clock) if day and clock else None


def _day(match: re.Match[str]) -> date | None:
    found = match.groupdict()
    name = (found.get("name") or "")[:3].lower()
    if name and name not in _MONTHS:
        return None
    month = _MONTHS.index(name) + 1 if name else int(found["month"])
    try:
        return date(int(found["year"]), month, int(found["day"]))
    except ValueError:
        return None


def _clock(match: re.Match[str]) -> time | None:
    """오전 12:05 is 00:05 and 오후 12:30 is 12:30."""
    half = (match["before"] or match["after"] or "").lower()
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if half and not 1 <= hour <= 12:
        return None
    if half:
        hour = hour % 12 + 12 * (half in ("오후", "pm"))
    return time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None


_NOTICE = re.compile(
    r"(?P<actor>.+?)님이 (?:"
    r".+님을 초대(?:하였|했)습니다\.|들어왔습니다\.(?:운영정책을 .*)?|나갔습니다\."
    r"|.+님을 내보냈습니다\.|.+님에게 .+ 권한을 .+습니다\.)"
    r"|(?P<removed>.+?)님을 내보냈습니다\."
    r"|(?P<english>.+?) (?:invited .+\.|(?:joined|left) this chatroom\.)"
)
_ROOM_NOTICES = re.compile(
    r"채팅방 관리자가 메시지를 가렸습니다\.|운영정책을 위반한 메시지로 신고 접수 시 .*"
    r"|불법촬영물등 식별 및 게재제한 조치 안내"
)


def is_room_notice(line: str) -> bool:
    """Whether a line is a notice without a name."""
    return _ROOM_NOTICES.fullmatch(line) is not None


def notice_subject(line: str) -> str | None:
    """The person in a notice such as 민수님이 나갔습니다.; None for a line without the form of a notice."""
    match = _NOTICE.fullmatch(line)
    return (match["actor"] or match["removed"] or match["english"]) if match else None


_CALLS = r"(?:보이스톡|페이스톡|라이브톡|그룹콜)(?: (?:해요|시작|종료|취소|부재중|응답 없음|(?:\d+:)?\d{1,2}:\d{2}))?"
_MEDIA = re.compile(
    r"(?:사진|동영상|이모티콘|음성 ?메시지|연락처|지도|[Pp]hotos?|[Vv]ideo|[Ee]moticons?|[Vv]oice [Mm]essage)"
    r"|사진 \d+장|동영상 \d+개|[Pp]hotos? \d+|(?:파일|[Ff]ile): .+"
    rf"|톡게시판 '[^'\n]+': .*|{_CALLS}|[\d,]+원을 (?:받으세요|받았어요|보냈어요)\.",
    re.DOTALL,
)
_WRAPPED = re.compile(r"\((?P<round>[^()]+)\)|<(?P<angle>[^<>]+)>")
_DELETED = frozenset({"삭제된 메시지입니다.", "This message was deleted.", "Deleted message."})


def kind_of(text: str) -> Kind:
    """The kind of a message: text, a placeholder for a picture, file or call, or a deleted message."""
    body = text.strip()
    wrapped = _WRAPPED.fullmatch(body)
    inner = (wrapped["round"] or wrapped["angle"]) if wrapped else body
    if inner in _DELETED:
        return "deleted"
    return "media" if _MEDIA.fullmatch(inner) and ("\n" not in inner or inner.startswith("톡게시판")) else "message"
