"""Conversations out of the events of a chat: cut at silences, turns of one speaker joined, roles given.

The one who is imitated is `assistant`, everybody else `user`. A conversation begins with the first turn of
the others and ends with the last of the imitated one; what is before and after is counted.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rlhf.config.flags import flag
from rlhf.curate.kakao.reader import ChatEvent, read_kakao
from rlhf.errors import DataError


def parse_gap(text: str) -> timedelta:
    """`30m`, `6h` or `2d`."""
    match = re.fullmatch(r"(\d+)([mhd])", text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30m, 6h or 2d")
    return int(match[1]) * {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}[match[2]]


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How a chat is cut into conversations.

    `me` are the names (the same person has others in other exports) whose turns are to be imitated; `partner`
    is the one other speaker to keep, "" for all; a silence over `gap` starts a new conversation.
    """

    me: tuple[str, ...] = flag((), "speaker to imitate; repeat it for other names of the same person", metavar="NAME")
    partner: str = flag("", "in a group chat, keep only this other speaker", metavar="NAME")
    gap: timedelta = flag(
        timedelta(hours=6),
        "a longer silence starts a new conversation, such as 30m, 6h or 2d (default: 6h)",
        metavar="6h",
        parse=parse_gap,
    )


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat whose speakers are known; `named` is whether a turn has to say who speaks."""

    path: Path
    options: ChatOptions
    speakers: dict[str, int]

    @property
    def named(self) -> bool:
        """Whether there are several others, so that text has to say who speaks."""
        return not self.options.partner and len(set(self.speakers) - set(self.options.me)) > 1


def open_chat(path: Path, options: ChatOptions) -> Chat:
    """Reads the speakers of an export once.

    Raises:
        DataError: without `me`, or with a name nobody has in this chat; it lists who spoke how often.
    """
    events = (event for event in read_kakao(path) if isinstance(event, ChatEvent) and event.kind == "message")
    speakers = dict(Counter(event.sender for event in events).most_common())
    shown = ", ".join(f"{name} ({number} messages)" for name, number in speakers.items())
    if speakers:
        if not options.me:
            fix = f"--me {_quoted(next(iter(speakers)))} imitates that speaker"
            raise DataError("whom shall the model imitate?", where=str(path), expected=f"--me, one of {shown}", fix=fix)
        if not any(name in speakers for name in options.me):
            problem = f"nobody is called {' or '.join(options.me)}"
            fix = "Android calls whoever exported the chat 회원님" if "회원님" in speakers else "--me with one of them"
            raise DataError(problem, where=str(path), expected=f"one of {shown}", fix=fix)
        if options.partner and (options.partner not in speakers or options.partner in options.me):
            problem = f"no partner is called {options.partner}"
            raise DataError(problem, where=str(path), expected=f"--partner, one of {shown}")
    return Chat(path, options, speakers)


def _quoted(name: str) -> str:
    return name if name.isalnum() else f'"{name}"'


def conversations(chat: Chat, counts: Counter[str]) -> Iterator[tuple[int, list[dict[str, Any]] | DataError]]:
    """(line, messages as {role, content}) of every conversation; what cannot be one is the error it is.

    `counts` is given what is left out inside conversations: pictures, notices, turns at the ends.
    """
    for events in _cut(read_kakao(chat.path), chat.options.gap):
        first = events[0]
        if isinstance(first, DataError):
            yield int(first.where.rpartition(":")[2]), first
            continue
        spoken = list(_spoken((event for event in events if isinstance(event, ChatEvent)), chat, counts))
        turns = _joined(spoken, chat)
        kept = _between(turns)
        counts["turns before a partner or after the last answer"] += len(turns) - len(kept)
        if kept:
            yield first.line, kept
        elif turns:
            problem = "a conversation in which one never answers the other"
            yield first.line, DataError(problem, where=f"{chat.path}:{first.line}")
    if not chat.speakers:
        yield 1, DataError("an export without messages", where=str(chat.path))


def _cut(events: Iterable[ChatEvent | DataError], gap: timedelta) -> Iterator[Sequence[ChatEvent | DataError]]:
    """Events between silences; an error alone. A jump back in time, as in joined exports, cuts as well."""
    current: list[ChatEvent] = []
    for event in events:
        if isinstance(event, DataError):
            yield [event]
            continue
        if current and abs(event.moment - current[-1].moment) > gap:
            yield current
            current = []
        current.append(event)
    if current:
        yield current


def _spoken(events: Iterable[ChatEvent], chat: Chat, counts: Counter[str]) -> Iterator[ChatEvent]:
    """The messages to be trained on."""
    wanted = {*chat.options.me, chat.options.partner}
    for event in events:
        if event.kind != "message":
            counts[_LEFT_OUT[event.kind]] += 1
        elif chat.options.partner and event.sender not in wanted:
            counts["messages by other speakers"] += 1
        elif event.text.strip():
            yield event


_LEFT_OUT = {"media": "pictures, files and calls", "deleted": "deleted messages", "system": "notices of the room"}


def _joined(events: Iterable[ChatEvent], chat: Chat) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    before = ""
    for event in events:
        mine = event.sender in chat.options.me
        role, text = ("assistant" if mine else "user"), event.text.strip()
        if chat.named and not mine and event.sender != before:
            text = f"{event.sender}: {text}"
        before = event.sender
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n{text}"
        else:
            turns.append({"role": role, "content": text})
    return turns


def _between(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns from the first by the user to the last by the assistant."""
    start = 1 if turns and turns[0]["role"] == "assistant" else 0
    end = len(turns) - (1 if turns and turns[-1]["role"] == "user" else 0)
    return turns[start:end] if end - start >= 2 else []
