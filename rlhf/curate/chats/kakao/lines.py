"""Parses single lines of a KakaoTalk export: dates, headers of messages, notices of the room, placeholders.

The phone apps print `2023년 5월 10일 오후 1:23, 이름 : 말`, the PC app one line per day and `[이름] [오후 1:23] 말`.
Korean, English and Japanese, 12 and 24 hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from typing import NamedTuple

from rlhf.curate.chats.events import Kind
from rlhf.curate.chats.moments import clock_in, day_in, moment_in
from rlhf.curate.patterns import read_patterns

_PATTERNS = read_patterns("rlhf.curate.chats.kakao", "lines.yaml")
_STAMPS = tuple(pattern for name, pattern in _PATTERNS.items() if name.startswith("stamp_"))
_DAYS = tuple(pattern for name, pattern in _PATTERNS.items() if name.startswith("day_"))


def _named(start: str) -> dict[str, re.Pattern[str]]:
    """The expressions whose names begin with `start`, under the rest of the name as words."""
    return {
        name.removeprefix(start).replace("_", " "): pattern
        for name, pattern in _PATTERNS.items()
        if name.startswith(start)
    }


_NOTICES, _MEDIA = _named("notice_"), _named("media_")


class Header(NamedTuple):
    """The first line of a message or notice of the PC app; `sender` is empty for a notice."""

    moment: datetime
    sender: str
    text: str


class PhoneHeader(NamedTuple):
    """The first line of a message or notice of a phone app.

    `rest` is what follows the moment: `NAME : TEXT`, or a notice. `is_notice` says that the line has the mark of one,
    which only iOS writes.
    """

    moment: datetime
    rest: str
    is_notice: bool


def day_of(line: str) -> date | None:
    """The day of a line with nothing but a date, as the apps print before a day's messages; else None."""
    match = _first_match(_DAYS, line)
    return day_in(match) if match else None


def moment_of(line: str) -> datetime | None:
    """The moment of a line with nothing else (Android prints one before a day's messages); else None."""
    match = _first_match(_STAMPS, line)
    return moment_in(match) if match else None


def _first_match(patterns: Iterable[re.Pattern[str]], line: str) -> re.Match[str] | None:
    return next(filter(None, (pattern.fullmatch(line) for pattern in patterns)), None)


def phone_header(line: str) -> PhoneHeader | None:
    """The header in a line of Android or iOS that starts a message or a notice; else None."""
    for pattern in _STAMPS:
        match = pattern.match(line)
        moment = moment_in(match) if match else None
        if match is None or moment is None:
            continue
        rest = line[match.end() :]
        if rest.startswith((": ", ", ")):
            return PhoneHeader(moment, rest[2:], rest.startswith(": "))
    return None


def pc_day(line: str) -> date | None:
    """The day in a dashed line of the PC app; else None."""
    match = _PATTERNS["pc_day"].fullmatch(line)
    return day_of(match["day"]) if match else None


def pc_header(line: str, day: date) -> Header | None:
    """The header in a line of the PC app that starts a message (a notice, if the name is empty); else None."""
    match = _PATTERNS["pc_message"].fullmatch(line)
    clock = clock_in(match) if match else None
    if match is None or clock is None:
        return None
    return Header(datetime.combine(day, clock), match["sender"], match["text"] or "")


def csv_moment(cell: str) -> datetime | None:
    """The moment in the first column of a CSV export; None for anything else."""
    match = _PATTERNS["csv_stamp"].fullmatch(cell.strip())
    return moment_in(match) if match else None


def is_title(line: str) -> bool:
    """Whether a line has the form of an export's title."""
    return _PATTERNS["title"].fullmatch(line.strip()) is not None


def partner_of(line: str) -> str:
    """The name in a title such as `민수 님과 카카오톡 대화`, of a person or a room; "" without one."""
    match = _PATTERNS["title"].fullmatch(line.strip())
    return (match["korean"] or "") if match else ""


def is_saved(line: str) -> bool:
    """Whether a line says when the export was saved."""
    return _PATTERNS["saved"].fullmatch(line.strip()) is not None


def notice_of(line: str) -> str:
    """The kind of a notice, e.g. "joins and leaves"; "" for a line without the form of one."""
    return next((kind for kind, pattern in _NOTICES.items() if pattern.fullmatch(line)), "")


def notice_subject(line: str) -> str:
    """The person in a notice such as 민수님이 나갔습니다.; "" in one that names nobody."""
    match = _PATTERNS["subject"].match(line)
    return (match["korean"] or match["english"] or match["japanese"]) if match else ""


def is_bot(sender: str) -> bool:
    """Whether a sender is a bot of KakaoTalk itself."""
    return _PATTERNS["bot"].fullmatch(sender) is not None


def kind_of(text: str) -> tuple[Kind, str]:
    """The kind of a message, and what it stands for, e.g. ("media", "gifts"); ("message", "") for text."""
    body = text.strip()
    wrapped = _PATTERNS["wrapped"].fullmatch(body)
    inner = (wrapped["round"] or wrapped["angle"] or wrapped["square"]) if wrapped else body
    if _PATTERNS["deleted"].fullmatch(inner):
        return "deleted", "deleted or hidden messages"
    label = next((label for label, pattern in _MEDIA.items() if pattern.fullmatch(inner)), "")
    return ("media", label) if label else ("message", "")
