"""Conversations from the events of a chat: cut at silences, neighbouring turns of one role joined.

The imitated speaker is `assistant`, everybody else `user`. A conversation begins with the first turn of the others
and ends with the last turn of the imitated speaker; the turns before and after are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rlhf.curate.chats.events import ChatEvent, Guesses
from rlhf.curate.chats.export_text import composed
from rlhf.curate.chats.exports import read_export
from rlhf.errors import DataError


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat and how it is cut into conversations.

    Attributes:
        format: name of the app, as `exports.export_format` gives it.
        speakers: number of messages by speaker.
        me: names of the speaker to imitate (a person has different names in different exports).
        partner: the only other speaker to keep; "" keeps all.
        gap: a longer silence starts a new conversation.
    """

    path: Path
    format: str
    speakers: dict[str, int]
    me: tuple[str, ...]
    partner: str
    gap: timedelta

    @property
    def is_group(self) -> bool:
        """Whether there are several others, so that a turn must name its speaker."""
        return not self.partner and len(set(self.speakers) - set(self.me)) > 1

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the user gave."""
        return (*self.me, self.partner) if self.partner else self.me


def open_chat(path: Path, format: str, me: tuple[str, ...], partner: str, gap: timedelta) -> Chat:
    """Reads the speakers of an export; names are compared as NFC.

    Raises:
        DataError: without `me`, or for a name that nobody has in this chat; it lists the speakers.
    """
    me, partner = tuple(map(composed, me)), composed(partner)
    events = (event for event in read_export(path, format, (*me, partner)) if isinstance(event, ChatEvent))
    spoken = (event.sender for event in events if event.kind in ("message", "cut"))
    speakers = dict(Counter(spoken).most_common())
    shown = ", ".join(f"{name} ({number} messages)" for name, number in speakers.items())
    if speakers:
        if not me:
            fix = f"--me {_quoted(next(iter(speakers)))} imitates that speaker"
            raise DataError("no speaker to imitate", where=str(path), expected=f"--me, one of {shown}", fix=fix)
        if not any(name in speakers for name in me):
            problem = f"nobody is called {' or '.join(me)}"
            fix = "Android calls whoever exported the chat 회원님" if "회원님" in speakers else "--me with one of them"
            raise DataError(problem, where=str(path), expected=f"one of {shown}", fix=fix)
        if partner and (partner not in speakers or partner in me):
            problem = f"no partner is called {partner}"
            raise DataError(problem, where=str(path), expected=f"--partner, one of {shown}")
    return Chat(path, format, speakers, me, partner, gap)


def _quoted(name: str) -> str:
    return name if name.isalnum() else f'"{name}"'


def conversations(
    chat: Chat, counts: Counter[str], guesses: Guesses
) -> Iterator[tuple[int, list[dict[str, Any]] | DataError]]:
    """(line, messages as {role, content}) of every conversation, or the error of one that cannot be used.

    `counts` receives what is dropped inside conversations: pictures, notices, turns at the ends; `guesses` receives
    what was decided by the form of a text.
    """
    for events in _cut(read_export(chat.path, chat.format, chat.names), chat.gap):
        if isinstance(events, DataError):
            yield int(events.where.rpartition(":")[2]), events
            continue
        first = events[0]
        for event in events:
            guesses.add(event)
        turns = _turns(events, chat, counts)
        kept = answered_part(turns)
        counts["turns before a partner or after the last answer"] += len(turns) - len(kept)
        if kept:
            yield first.line, kept
        elif turns:
            problem = "a conversation in which one side never answers"
            yield first.line, DataError(problem, where=f"{chat.path}:{first.line}")
    if not chat.speakers:
        yield 1, DataError("an export without messages", where=str(chat.path))


def _cut(events: Iterable[ChatEvent | DataError], gap: timedelta) -> Iterator[list[ChatEvent] | DataError]:
    """Groups of events between silences, and errors. Jumps back in time (joined exports) cut as well."""
    current: list[ChatEvent] = []
    for event in events:
        if isinstance(event, DataError):
            yield event
            continue
        if current and abs(event.moment - current[-1].moment) > gap:
            yield current
            current = []
        current.append(event)
    if current:
        yield current


_NOT_MESSAGES = {"media": "pictures, files and calls", "deleted": "deleted messages", "system": "notices of the room"}
_CUT_ANSWERS = "answers that the app cut"  # learnt, they would teach to stop in the middle; a cut question does no harm


def _left_out(event: ChatEvent, chat: Chat) -> str:
    """Why an event is no message to train on; "" for one that is."""
    mine = event.sender in chat.me
    if event.kind in _NOT_MESSAGES:
        return _NOT_MESSAGES[event.kind]
    if event.kind == "cut" and mine:
        return _CUT_ANSWERS
    return "messages by other speakers" if chat.partner and not mine and event.sender != chat.partner else ""


def _turns(events: Iterable[ChatEvent], chat: Chat, counts: Counter[str]) -> list[dict[str, Any]]:
    """The messages to train on, joined to turns; the other events are counted."""
    turns: list[dict[str, Any]] = []
    before = ""
    for event in events:
        mine, text = event.sender in chat.me, event.text.strip()
        if left_out := _left_out(event, chat):
            counts[left_out] += 1
            continue
        if not text:
            continue
        if chat.is_group and not mine and event.sender != before:
            text = f"{event.sender}: {text}"
        before, role = event.sender, "assistant" if mine else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n{text}"
        else:
            turns.append({"role": role, "content": text})
    return turns


def answered_part(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns from the first of the user to the last of the assistant; empty where one side has none."""
    start = 1 if turns and turns[0]["role"] == "assistant" else 0
    end = len(turns) - (1 if turns and turns[-1]["role"] == "user" else 0)
    return turns[start:end] if end - start >= 2 else []
