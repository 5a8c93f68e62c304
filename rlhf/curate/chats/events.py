"""What a chat export holds: messages of people, and what the app wrote in between.

An event that a rule had to decide, because the export does not mark who wrote it, carries the name of its rule in
`guess`. `Guesses` counts these and keeps the first ones, so that a wrong rule is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Kind = Literal["message", "media", "deleted", "system", "cut"]
SHOWN = 3  # guesses of each kind that are shown
_WIDTH = 80  # characters of a guess that are shown


@dataclass(frozen=True, slots=True)
class ChatEvent:
    """One message or notice.

    Attributes:
        moment: local time of the export; a notice of KakaoTalk's PC app has the moment of the message before it.
        kind: text of a person (`cut` where the app left out its end), or a placeholder or notice of the app.
        sender: who wrote it; for a notice, the person it is about, or "".
        line: first line of the event, or the number of its entry in a JSON export.
        guess: kind of the decision, "" where the export itself says what the event is.
    """

    moment: datetime
    kind: Kind
    sender: str
    text: str
    line: int
    guess: str = ""


class Guesses:
    """Counts the decisions of each kind and keeps the first few."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, list[str]]] = {}

    def add(self, event: ChatEvent) -> None:
        """Counts an event if it was guessed."""
        if not event.guess:
            return
        number, first = self._found.get(event.guess, (0, []))
        if number < SHOWN:
            text = event.text.replace("\n", " / ")
            sender = f"{event.sender}: " if event.sender and event.kind != "system" else ""
            shown = f"{sender}{text}"
            first = [*first, f"line {event.line}: {shown[:_WIDTH]}{'...' if len(shown) > _WIDTH else ''}"]
        self._found[event.guess] = (number + 1, first)

    def recorded(self, mask: Callable[[str], str]) -> dict[str, Any]:
        """The entry of the manifest; `mask` hides personal information."""
        return {
            kind: {"count": number, "first": [mask(text) for text in first]}
            for kind, (number, first) in sorted(self._found.items(), key=lambda item: -item[1][0])
        }


def shown_guesses(file: str, recorded: dict[str, Any]) -> Iterator[str]:
    """Lines for the terminal, from what the manifest records about a file."""
    if recorded:
        yield f"decided by the form of a text in {file}, with the first {SHOWN} of each kind:"
    for kind, entry in recorded.items():
        yield f"  {entry['count']} {kind}"
        yield from (f"    {text}" for text in entry["first"])
