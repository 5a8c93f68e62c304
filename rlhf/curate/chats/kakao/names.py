"""Where the name ends in `NAME : TEXT` of the phone apps, which escape nothing.

A name ends at the first ` : `, unless it is known to be longer: as the name that the user gave, as the name in the
title, or because all messages under the shorter name go on with the same few words and another ` : `.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from rlhf.curate.chats.kakao.lines import notice_of

SEPARATOR = " : "
_LONGEST = 40  # characters of the second part of a name
_TEXTS = 2  # different texts after a second part that make it one of a name


class Spoken(NamedTuple):
    """A sender and the text; `guessed` says that the name might also end at another separator."""

    sender: str
    text: str
    guessed: bool


class Names:
    """The names of a part of an export, from everything that follows a moment in it."""

    def __init__(self, rests: Iterable[str], known: Collection[str]) -> None:
        self._known = sorted((name for name in known if name), key=len, reverse=True)
        seconds: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        plain: set[str] = set()
        for rest in rests:
            name, text = split(rest)
            if not text and SEPARATOR not in f"{rest} ":
                continue
            second, more, after = f"{text} ".partition(SEPARATOR)
            if more and len(second) <= _LONGEST and "\n" not in second:
                seconds[name][second].add(after)
            elif not notice_of(rest):
                plain.add(name)
        self._plain = plain
        self._longer = {
            f"{name}{SEPARATOR}{second}"
            for name, found in seconds.items()
            if name not in plain and all(len(texts) >= _TEXTS for texts in found.values())
            for second in found
        }
        self._ambiguous = set(seconds) - plain

    def speaks(self, name: str) -> bool:
        """Whether somebody of this name writes a message that can be read in one way only."""
        return name in self._plain or name in self._known

    def spoken(self, rest: str) -> Spoken:
        """The sender and the text of a line that starts a message."""
        for known in self._known:
            if f"{rest} ".startswith(f"{known}{SEPARATOR}"):
                return Spoken(known, rest[len(known) + len(SEPARATOR) :], guessed=False)
        name, text = split(rest)
        second, more, after = text.partition(SEPARATOR)
        if more and f"{name}{SEPARATOR}{second}" in self._longer:
            return Spoken(f"{name}{SEPARATOR}{second}", after, guessed=True)
        return Spoken(name, text, guessed=bool(more) and name in self._ambiguous)


def split(rest: str) -> tuple[str, str]:
    """(name, text) by the first separator; an empty message may have lost the space at its end."""
    name, separator, text = f"{rest} ".partition(SEPARATOR)
    return (name, text[:-1]) if separator else (rest, "")
