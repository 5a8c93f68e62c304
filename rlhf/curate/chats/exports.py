"""Recognises the export of a chat app, and reads it as events."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from rlhf.curate.chats.events import ChatEvent
from rlhf.curate.chats.json_exports import (
    json_export_format,
    read_discord,
    read_instagram,
    read_slack,
    read_telegram,
)
from rlhf.curate.chats.kakao.reader import is_kakao, read_kakao
from rlhf.curate.chats.line import is_line, read_line
from rlhf.errors import DataError

CHAT_FORMATS = ("kakao", "line", "discord", "telegram", "slack", "instagram")
APPS = {
    "kakao": "KakaoTalk",
    "line": "LINE",
    "discord": "Discord (DiscordChatExporter)",
    "telegram": "Telegram",
    "slack": "Slack",
    "instagram": "Instagram or Messenger",
}
_JSON = {"discord": read_discord, "telegram": read_telegram, "slack": read_slack, "instagram": read_instagram}


def export_format(path: Path) -> str | None:
    """The name, among `CHAT_FORMATS`, of the app that exported a file or folder; None for anything else.

    Raises:
        DataError: for bytes that are not text, in a file that could be an export.
    """
    if found := json_export_format(path):
        return found
    if not path.is_file():
        return None
    return "line" if is_line(path) else "kakao" if is_kakao(path) else None


def read_export(path: Path, format: str, known: Collection[str] = ()) -> Iterator[ChatEvent | DataError]:
    """The events of an export in the order of their writing; an unreadable one is yielded as its error.

    Args:
        path: file to read, or the folder of a Slack channel.
        format: one of `CHAT_FORMATS`.
        known: names that the user gave, which may hold what ends a name in this format.

    Raises:
        DataError: for a file that is not such an export.
    """
    if format == "kakao":
        return read_kakao(path, known)
    if format == "line":
        return read_line(path, known)
    return _JSON[format](path)
