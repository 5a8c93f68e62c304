"""Reads the chat history of LINE as events: the text that its phone and PC apps save.

The phone apps write `TIME<tab>NAME<tab>TEXT` under a line with the day, quote a text of several lines, and leave the
name of a notice out. The PC app writes spaces instead of tabs and quotes nothing, so a name with a space is known only
where the user or the title gives it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path

from rlhf.curate.chats.events import ChatEvent, Kind
from rlhf.curate.chats.export_text import TextLine, text_lines
from rlhf.curate.chats.moments import clock_in, day_in
from rlhf.curate.patterns import read_patterns
from rlhf.errors import DataError

_PATTERNS = read_patterns("rlhf.curate.chats", "line.yaml")
_HEAD = 20  # lines within which the title stands


def is_line(path: Path) -> bool:
    """Whether a .txt file begins with the title of LINE's chat history."""
    if path.suffix.lower() != ".txt":
        return False
    return any(line.text.startswith("[LINE]") for line in islice(text_lines(path), _HEAD))


def read_line(path: Path, known: Collection[str] = ()) -> Iterator[ChatEvent | DataError]:
    """The events of a chat history, in its order; `known` are names that may hold spaces."""
    reader = _Reader({*known} - {""})
    for line in text_lines(path):
        yield from reader.events(line)
    yield from reader.finished()


class _Reader:
    def __init__(self, known: set[str]) -> None:
        self._names = known
        self._day = date(2000, 1, 1)
        self._moment = datetime.combine(self._day, time())
        self._pending: ChatEvent | None = None

    def events(self, line: TextLine) -> Iterator[ChatEvent]:
        """The event that a line completes, if any."""
        if self._quoted():
            self._append(line.text)
        elif day := _day_of(line.text):
            yield from self.finished()
            self._day = day
        elif title := _PATTERNS["title"].fullmatch(line.text):
            yield from self.finished()
            self._names |= {name for name in title.groups() if name}
            if line.number > 1:
                yield ChatEvent(self._moment, "system", "", line.text, line.number, "headers of joined exports")
        elif _PATTERNS["saved"].fullmatch(line.text):
            yield from self.finished()
        elif started := self._started(line):
            yield from self.finished()
            self._pending, self._moment = started, started.moment
        else:
            self._append(line.text)

    def finished(self) -> Iterator[ChatEvent]:
        """The event that waits for further lines, if any."""
        event, self._pending = self._pending, None
        if event is None:
            return
        text = event.text.rstrip("\n")
        if "\n" in text and len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('""', '"')
        kind, guess = (event.kind, event.guess) if event.kind != "message" else _kind_of(text, event.guess)
        yield replace(event, text=text, kind=kind, guess=guess)

    def _quoted(self) -> bool:
        """Whether the pending text has an open quote, so that its next line belongs to it whatever it looks like."""
        text = self._pending.text if self._pending else ""
        return text.startswith('"') and "\n" in text and text.replace('""', "").count('"') == 1

    def _append(self, text: str) -> None:
        if self._pending is not None:
            self._pending = replace(self._pending, text=f"{self._pending.text}\n{text}")

    def _started(self, line: TextLine) -> ChatEvent | None:
        if match := _PATTERNS["message"].fullmatch(line.text):
            clock, sender, text, guess = clock_in(match), match["sender"] or "", match["text"], ""
        elif match := _PATTERNS["spaced"].fullmatch(line.text):
            clock = clock_in(match)
            sender, text, guess = self._split(match["rest"])
        else:
            return None
        if clock is None:
            return None
        kind: Kind = "message" if sender else "system"
        return ChatEvent(datetime.combine(self._day, clock), kind, sender, text, line.number, guess)

    def _split(self, rest: str) -> tuple[str, str, str]:
        """(sender, text, guess) of a line of the PC app."""
        for label in ("notices_of_the_room", "unsent_messages"):
            if _PATTERNS[label].fullmatch(rest):
                return "", rest, label.replace("_", " ")
        for name in sorted(self._names, key=len, reverse=True):
            if f"{rest} ".startswith(f"{name} "):
                return name, rest[len(name) + 1 :], ""
        name, _, text = rest.partition(" ")
        return name, text, "where a name without a mark at its end ends"


def _day_of(line: str) -> date | None:
    matches = (_PATTERNS[name].fullmatch(line) for name in ("day_first_year", "day_last_year"))
    return next((day_in(match) for match in matches if match), None)


def _kind_of(text: str, guess: str) -> tuple[Kind, str]:
    if _PATTERNS["media"].fullmatch(text):
        return "media", "pictures, files and calls"
    if _PATTERNS["unsent_messages"].fullmatch(text):
        return "deleted", "unsent messages"
    return "message", guess
