"""Splits a text export where another one was joined to it, and tells which app wrote each part.

An export begins with its title and the line that says when it was saved, in either order. People join exports with
`cat` or in an editor, so a header may come again anywhere, and so may the byte order mark at the start of a file,
which no person types; each part is then read by the rules of its own app.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import islice
from typing import Literal, NamedTuple

from rlhf.curate.chats.export_text import TextLine
from rlhf.curate.chats.kakao.lines import (
    day_of,
    is_saved,
    is_title,
    moment_of,
    partner_of,
    pc_day,
    pc_header,
    phone_header,
)

App = Literal["pc", "phone"]
ANY_DAY = date(2000, 1, 1)  # where only the form of a line matters


class Part(NamedTuple):
    """An export within a file: its header, the lines after it, and the app; None where no line has a known form."""

    header: Sequence[TextLine]
    lines: Sequence[TextLine]
    app: App | None

    @property
    def partner(self) -> str:
        """The name of the other person, or of the room, in the title."""
        return next(filter(None, (partner_of(line.text) for line in self.header)), "")


def parts_of(lines: Sequence[TextLine]) -> Iterator[Part]:
    """The exports that a file holds, in its order."""
    starts = [(0, 0)]
    for index, line in enumerate(lines):
        if index < starts[-1][1]:
            continue
        if line.marked and index and _starts_a_record(lines, index, starts[-1][1]):
            starts.append((index, _first_form(lines, index)))
        elif is_saved(line.text) and (header := _header_around(lines, index, starts[-1][1])) is not None:
            starts = [header] if header[0] == 0 else [*starts, header]
    for (start, after), (end, _) in zip(starts, [*starts[1:], (len(lines), 0)], strict=True):
        if end > start:
            yield Part(lines[start:after], lines[after:end], app_of(lines[after:end]))


def app_of(lines: Sequence[TextLine], within: int | None = None) -> App | None:
    """The app, by the first line that has the form of either."""
    for line in islice(lines, within):
        if pc_day(line.text) or pc_header(line.text, ANY_DAY):
            return "pc"
        if phone_header(line.text):
            return "phone"
    return None


def _first_form(lines: Sequence[TextLine], start: int) -> int:
    """The first line from `start` that is no header: a day, or a message; the end where there is none."""
    for index in range(start, len(lines)):
        text = lines[index].text
        if pc_day(text) or day_of(text) or moment_of(text) or pc_header(text, ANY_DAY) or phone_header(text):
            return index
    return len(lines)


def _header_around(lines: Sequence[TextLine], saved: int, floor: int) -> tuple[int, int] | None:
    """(first line, line after the last) of the header that holds a date of saving; None where no title is near it."""
    before = next((index for index in range(saved - 1, floor - 1, -1) if lines[index].text.strip()), None)
    after = next((index for index in range(saved + 1, len(lines)) if lines[index].text.strip()), None)
    if before is not None and (is_title(lines[before].text)):
        start, end = before, saved
    elif after is not None and is_title(lines[after].text):
        start, end = saved, after
    elif before is None:
        start, end = saved, saved
    else:
        return None
    if not _starts_a_record(lines, start, floor):
        return None
    while end + 1 < len(lines) and not lines[end + 1].text.strip():
        end += 1
    return start, end + 1


def _starts_a_record(lines: Sequence[TextLine], start: int, floor: int) -> bool:
    """Whether a line does not continue a message: phones end a message with CRLF and write LF inside it."""
    if start == 0 or lines[start - 1].end == "\r\n":
        return True
    return all(line.end != "\r\n" for line in lines[floor:start])
