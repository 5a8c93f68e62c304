"""Dates and times in the lines of chat exports, from the named groups of a regular expression.

Groups: `year`, `month` or `name` (of an English month), `day`; `hour`, `minute`, `second`, and `before` or `after` for
the half of a 12-hour clock.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_AFTERNOON = ("오후", "午後", "下午", "pm")


def moment_in(match: re.Match[str]) -> datetime | None:
    """The moment, None where its day or its time does not exist."""
    day, clock = day_in(match), clock_in(match)
    return datetime.combine(day, clock) if day and clock else None


def day_in(match: re.Match[str]) -> date | None:
    """The day, None where it does not exist."""
    found = match.groupdict()
    name = (found.get("name") or "")[:3].lower()
    if name and name not in _MONTHS:
        return None
    month = _MONTHS.index(name) + 1 if name else int(found["month"])
    try:
        return date(int(found["year"]), month, int(found["day"]))
    except ValueError:
        return None


def clock_in(match: re.Match[str]) -> time | None:
    """The time, None where it does not exist: 오전 12:05 is 00:05 and 오후 12:30 is 12:30."""
    half = (match["before"] or match["after"] or "").lower().replace(".", "")
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if half and not 1 <= hour <= 12:
        return None
    if half:
        hour = hour % 12 + 12 * (half in _AFTERNOON)
    return time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None
