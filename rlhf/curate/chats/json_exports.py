"""Reads chat exports in JSON as events: DiscordChatExporter, Telegram Desktop, Slack, and Instagram or Messenger.

These mark most of what the app wrote, so little is guessed. Formats:
- Discord: `{guild, channel, messages: [{type, timestamp, content, author: {name, nickname, isBot}}]}`, as written by
  github.com/Tyrrrz/DiscordChatExporter (JsonMessageWriter.cs);
- Telegram: `{name, type, messages: [{type: message|service, date, from, text: str or parts}]}`, from Export chat
  history (JSON) of one chat;
- Slack: a channel's folder, or one of its days `2024-01-31.json`, of a workspace export, with `users.json` beside the
  folder: `[{type, subtype, user, text, ts, thread_ts, user_profile}]`;
- Instagram and Messenger: `message_1.json` of "Download your information", `{participants, messages: [{sender_name,
  timestamp_ms, content}]}`, newest first, its UTF-8 bytes written as one character each.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhf.curate.chats.events import ChatEvent, Kind
from rlhf.curate.chats.export_text import composed
from rlhf.curate.patterns import read_patterns
from rlhf.errors import DataError

Entry = Mapping[str, Any]
_PATTERNS = read_patterns("rlhf.curate.chats", "json_exports.yaml")
_PEOPLE_DISCORD = ("Default", "Reply", "0", "19")
_PEOPLE_SLACK = (None, "", "thread_broadcast", "me_message", "file_share", "reply_broadcast")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.json")
_HEAD_CHARACTERS = 1 << 16
_MARKS = {  # by which the start of a file shows its format: all of these texts
    "discord": ('"channel"', '"messages"', '"exportedAt"'),
    "telegram": ('"messages"', '"date_unixtime"'),
    "instagram": ('"participants"', '"timestamp_ms"', '"sender_name"'),
    "slack": ('"ts"', '"type"', '"text"'),
}
_WHOLE_ACCOUNT = '"about": "Here is the data you requested'


def json_export_format(path: Path) -> str | None:
    """The app whose export a .json file or a folder is, by its start; None for anything else."""
    if path.is_dir():
        return "slack" if _days(path) else None
    if path.suffix.lower() != ".json":
        return None
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        head = stream.read(_HEAD_CHARACTERS)
    if _WHOLE_ACCOUNT in head:
        return "telegram"
    found = next((name for name, marks in _MARKS.items() if all(mark in head for mark in marks)), None)
    return found if found is None or head.lstrip().startswith("[" if found == "slack" else "{") else None


def read_discord(path: Path) -> Iterator[ChatEvent | DataError]:
    """The messages of DiscordChatExporter; nicknames are preferred to names, as the app shows them."""

    def event(entry: Entry, number: int) -> ChatEvent:
        author, text = entry["author"], composed(entry["content"])
        sender = composed(author.get("nickname") or author["name"])
        by_app = str(entry["type"]) not in _PEOPLE_DISCORD or author.get("isBot")
        kind: Kind = "system" if by_app else "message" if text.strip() else "media"
        return ChatEvent(_utc(datetime.fromisoformat(entry["timestamp"])), kind, sender, text, number)

    return _events(path, _entries(_loaded(path), path), event)


def read_telegram(path: Path) -> Iterator[ChatEvent | DataError]:
    """The messages of one chat of Telegram Desktop; what was forwarded or written through a bot is nobody's own."""

    def event(entry: Entry, number: int) -> ChatEvent:
        text, sender = composed(_joined(entry["text"])), composed(entry.get("from") or entry.get("actor") or "")
        not_own = entry["type"] != "message" or any(entry.get(key) for key in ("forwarded_from", "via_bot"))
        kind: Kind = "system" if not_own or not sender else "message" if text.strip() else "media"
        return ChatEvent(datetime.fromisoformat(entry["date"]), kind, sender, text, number)

    value = _loaded(path)
    if isinstance(value, dict) and "chats" in value:
        fix = "open the chat > Export chat history > JSON, and import that result.json"
        raise DataError("all chats of a Telegram account", where=str(path), expected="the export of one chat", fix=fix)
    return _events(path, _entries(value, path), event)


def read_instagram(path: Path) -> Iterator[ChatEvent | DataError]:
    """The messages of a thread of Instagram or Messenger, oldest first."""

    def event(entry: Entry, number: int) -> ChatEvent:
        text, sender = (composed(_mended(entry.get(key) or "")) for key in ("content", "sender_name"))
        label = next((name for name, pattern in _PATTERNS.items() if pattern.fullmatch(text)), "")
        kind: Kind = "message" if text.strip() and not label else "media"
        if entry.get("is_unsent"):
            kind = "deleted"
        guess = label.replace("_", " ") if kind == "media" else ""
        return ChatEvent(
            _utc(datetime.fromtimestamp(entry["timestamp_ms"] / 1000, UTC)), kind, sender, text, number, guess
        )

    entries = _entries(_loaded(path), path)
    return _events(path, sorted(entries, key=_timestamp), event)


def read_slack(path: Path) -> Iterator[ChatEvent | DataError]:
    """The messages of a channel's folder or of one of its days; a thread follows the message that it answers."""
    files = _days(path) if path.is_dir() else [path]
    names = _slack_names((path if path.is_dir() else path.parent).parent / "users.json")
    entries = [entry for file in files for entry in _entries({"messages": _loaded(file)}, file)]

    def event(entry: Entry, number: int) -> ChatEvent:
        profile = entry.get("user_profile") or {}
        shown = profile.get("display_name") or profile.get("real_name") or entry.get("username") or entry.get("user")
        sender = composed(names.get(entry.get("user", ""), "") or shown or "")
        text = composed(_slack_text(entry.get("text") or "", names))
        by_app = entry.get("type") != "message" or entry.get("subtype") not in _PEOPLE_SLACK or entry.get("bot_id")
        kind: Kind = "system" if by_app else "message" if text.strip() else "media"
        if entry.get("subtype") == "tombstone":
            kind = "deleted"
        return ChatEvent(_utc(datetime.fromtimestamp(float(entry["ts"]), UTC)), kind, sender, text, number)

    ordered = sorted(entries, key=lambda entry: (str(entry.get("thread_ts") or entry.get("ts")), str(entry.get("ts"))))
    return _events(path, ordered, event)


def _events(
    path: Path, entries: Sequence[Entry], event: Callable[[Entry, int], ChatEvent]
) -> Iterator[ChatEvent | DataError]:
    for number, entry in enumerate(entries, 1):
        try:
            yield event(entry, number)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            yield DataError(f"an entry that is no message: {error!r}", where=f"{path}:{number}")


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        fix = "the file may be cut: export the chat again"
        raise DataError(f"invalid JSON: {error}", where=f"{path}:1", fix=fix) from None


def _entries(value: Any, path: Path) -> list[Entry]:
    entries = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError("no list of messages", where=f"{path}:1", expected="the export of a chat, with `messages`")
    return entries


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _joined(text: Any) -> str:
    """Telegram's text: a string, or a list of strings and of marked parts."""
    if isinstance(text, str):
        return text
    return "".join(part if isinstance(part, str) else part["text"] for part in text)


def _mended(text: str) -> str:
    """Text whose UTF-8 bytes were written as one character each; other text as it is."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return text


def _timestamp(entry: Entry) -> float:
    value = entry.get("timestamp_ms")
    return value if isinstance(value, int | float) else 0.0


def _days(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if _DAY.fullmatch(file.name))


def _slack_names(users: Path) -> dict[str, str]:
    if not users.is_file():
        return {}
    found = {}
    for user in _loaded(users):
        profile = user.get("profile") or {}
        found[user["id"]] = composed(profile.get("display_name") or user.get("real_name") or user.get("name") or "")
    return found


def _slack_text(text: str, names: Mapping[str, str]) -> str:
    """Slack's `<@U1>`, `<#C1|general>` and `<https://a|b>` as the app shows them; &lt; &gt; &amp; as characters."""

    def shown(match: re.Match[str]) -> str:
        target, _, label = match[1].partition("|")
        if target.startswith("@"):
            return f"@{label or names.get(target[1:], target[1:])}"
        if target.startswith("#"):
            return f"#{label or target[1:]}"
        return f"@{label or target[1:]}" if target.startswith("!") else label or target

    return html.unescape(re.sub(r"<([^<>\n]+)>", shown, text))
