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

from rlhf.curate.patterns import read_patterns

Kind = Literal["message", "media", "deleted", "system"]

_PATTERNS = read_patterns("rlhf.curate.kakao", "lines.yaml")
_STAMPS = tuple(pattern for name, pattern in _PATTERNS.items() if name.startswith("stamp_"))
_DAYS = tuple(pattern for name, pattern in _PATTERNS.items() if name.startswith("day_"))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


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
    match = _PATTERNS["pc_day"].fullmatch(line)
    return day_of(match["day"]) if match else None


def pc_header(line: str, day: date) -> Header | None:
    """The header in a line of the PC app that starts a message (a notice, if the name is empty); else None."""
    match = _PATTERNS["pc_message"].fullmatch(line)
    clock = _clock(match) if match else None
    if match is None or clock is None:
        return None
    return Header(datetime.combine(day, clock), match["sender"], match["text"] or "")


def csv_moment(cell: str) -> datetime | None:
    """The moment in the first column of a CSV export; None for anything else."""
    match = _PATTERNS["csv_stamp"].fullmatch(cell.strip())
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


def is_room_notice(line: str) -> bool:
    """Whether a line is a notice without a name."""
    return _PATTERNS["room_notice"].fullmatch(line) is not None


def notice_subject(line: str) -> str | None:
    """The person in a notice such as 민수님이 나갔습니다.; None for a line without the form of a notice."""
    match = _PATTERNS["notice"].fullmatch(line)
    return (match["actor"] or match["removed"] or match["english"]) if match else None


def kind_of(text: str) -> Kind:
    """The kind of a message: text, a placeholder for a picture, file or call, or a deleted message."""
    body = text.strip()
    wrapped = _PATTERNS["wrapped"].fullmatch(body)
    inner = (wrapped["round"] or wrapped["angle"]) if wrapped else body
    if _PATTERNS["deleted"].fullmatch(inner):
        return "deleted"
    one_part = "\n" not in inner or inner.startswith("톡게시판")
    return "media" if one_part and _PATTERNS["media"].fullmatch(inner) else "message"
