"""Exports of Discord, Telegram, Slack, Instagram and LINE, in files written here after their published formats."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.curate.chats.events import ChatEvent
from rlhf.curate.chats.exports import APPS, CHAT_FORMATS, export_format, read_export
from rlhf.errors import DataError

Shown = list[tuple[str, str, str]]


def shown(path: Path, format: str, known: tuple[str, ...] = ()) -> Shown:
    """(kind, sender, text) of the events, after the format was recognised."""
    assert export_format(path) == format
    events = list(read_export(path, format, known))
    assert all(isinstance(event, ChatEvent) for event in events)
    return [(event.kind, event.sender, event.text) for event in events if isinstance(event, ChatEvent)]


def written(path: Path, value: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, **options), encoding="utf-8")
    return path


# Discord


def discord_message(number: int, name: str, content: str, **more: Any) -> dict[str, Any]:
    author = {"id": str(number), "name": name, "discriminator": "0000", "nickname": None, "isBot": False}
    return {
        "id": str(number),
        "type": "Default",
        "timestamp": f"2024-03-05T09:0{number}:00.123+09:00",
        "timestampEdited": None,
        "callEndedTimestamp": None,
        "isPinned": False,
        "content": content,
        "author": {**author, **more.pop("author", {})},
        "attachments": [],
        "embeds": [],
        "stickers": [],
        "reactions": [],
        "mentions": [],
        **more,
    }


def discord_export(path: Path) -> Path:
    messages = [
        discord_message(0, "haneul", "뭐 해?", author={"nickname": "하늘"}),
        discord_message(1, "바다", "코딩\n중", type="Reply", reference={"messageId": "0"}),
        discord_message(2, "가람", "Joined the server.", type="GuildMemberJoin"),
        discord_message(3, "바다", "Pinned a message.", type="ChannelPinnedMessage"),
        discord_message(4, "MEE6", "레벨 업!", author={"isBot": True}),
        discord_message(5, "바다", "", attachments=[{"id": "1", "url": "a.png", "fileName": "a.png"}]),
        discord_message(6, "haneul", "오", author={"nickname": "하늘"}),
    ]
    guild = {"id": "0", "name": "Direct Messages", "iconUrl": ""}
    channel = {"id": "1", "type": "DirectTextChat", "categoryId": None, "category": None, "name": "하늘", "topic": None}
    value = {"guild": guild, "channel": channel, "dateRange": {"after": None, "before": None}}
    return written(
        path, {**value, "exportedAt": "2024-03-06T00:00:00+09:00", "messages": messages, "messageCount": 7}, indent=2
    )


def test_discord(tmp_path: Path) -> None:
    path = discord_export(tmp_path / "dm.json")
    assert shown(path, "discord") == [
        ("message", "하늘", "뭐 해?"),
        ("message", "바다", "코딩\n중"),
        ("system", "가람", "Joined the server."),
        ("system", "바다", "Pinned a message."),
        ("system", "MEE6", "레벨 업!"),
        ("media", "바다", ""),
        ("message", "하늘", "오"),
    ]
    first = next(iter(read_export(path, "discord")))
    assert isinstance(first, ChatEvent)
    assert first.moment == datetime(2024, 3, 5, 0, 0, 0, 123000)  # 09:00 in Seoul is 00:00 UTC


# Telegram


def telegram_message(number: int, sender: str, text: Any, **more: Any) -> dict[str, Any]:
    when = {"date": f"2024-03-05T09:0{number}:00", "date_unixtime": str(1709596800 + 60 * number)}
    person = {"from": sender, "from_id": f"user{len(sender)}"}
    return {"id": number, "type": "message", **when, **person, "text": text, "text_entities": [], **more}


def telegram_export(path: Path) -> Path:
    mixed = ["여기 ", {"type": "link", "text": "https://example.com"}, " 봐"]
    service = {"id": 3, "type": "service", "date": "2024-03-05T09:03:00", "date_unixtime": "1709596980"}
    messages = [
        telegram_message(0, "하늘", "뭐 해?"),
        telegram_message(1, "바다", mixed),
        telegram_message(2, "바다", "남의 글", forwarded_from="소식 채널"),
        {**service, "actor": "하늘", "actor_id": "user2", "action": "pin_message", "text": "", "text_entities": []},
        telegram_message(4, "바다", "", photo="photos/1.jpg", width=1, height=1),
        telegram_message(5, "하늘", "사진 좋다", photo="photos/2.jpg"),
        telegram_message(6, "바다", "그치", via_bot="@gif"),
        telegram_message(7, "바다", "고마워"),
    ]
    return written(path, {"name": "하늘", "type": "personal_chat", "id": 1, "messages": messages}, indent=1)


def test_telegram(tmp_path: Path) -> None:
    assert shown(telegram_export(tmp_path / "result.json"), "telegram") == [
        ("message", "하늘", "뭐 해?"),
        ("message", "바다", "여기 https://example.com 봐"),
        ("system", "바다", "남의 글"),
        ("system", "하늘", ""),
        ("media", "바다", ""),
        ("message", "하늘", "사진 좋다"),
        ("system", "바다", "그치"),
        ("message", "바다", "고마워"),
    ]


def test_a_whole_telegram_account_is_refused(tmp_path: Path) -> None:
    about = "Here is the data you requested. Remember: Telegram is ad free."
    path = written(tmp_path / "result.json", {"about": about, "chats": {"about": "", "list": []}})
    assert export_format(path) == "telegram"
    with pytest.raises(DataError, match="all chats of a Telegram account") as caught:
        list(read_export(path, "telegram"))
    assert "Export chat history" in caught.value.fix


# Slack


def slack_export(root: Path) -> Path:
    """A workspace with one channel of two days; returns the channel's folder."""
    profile = {"display_name": "", "real_name": "이하늘"}
    users = [
        {"id": "U1", "name": "haneul", "real_name": "이하늘", "profile": {"display_name": "하늘", **{}}},
        {"id": "U2", "name": "bada", "profile": {"display_name": "바다"}},
    ]
    written(root / "users.json", users)
    first = [
        {
            "type": "message",
            "user": "U1",
            "text": "<@U2> 뭐 해? &lt;급함&gt;",
            "ts": "1709596800.000100",
            "user_profile": profile,
        },
        {
            "type": "message",
            "user": "U2",
            "text": "<https://example.com/a?b=1&amp;c=2|문서> 써",
            "ts": "1709596860.000200",
        },
        {
            "type": "message",
            "subtype": "channel_join",
            "user": "U3",
            "text": "<@U3> has joined the channel",
            "ts": "1709596870.000100",
        },
        {
            "type": "message",
            "subtype": "bot_message",
            "bot_id": "B1",
            "text": "배포 완료",
            "ts": "1709596880.000100",
            "username": "deploy",
        },
        {"type": "message", "user": "U2", "text": "", "files": [{"name": "a.png"}], "ts": "1709596890.000100"},
        {"type": "message", "user": "U1", "text": "다른 얘기", "ts": "1709596900.000100"},
    ]
    answer = {"thread_ts": "1709596860.000200", "parent_user_id": "U2"}
    second = [{"type": "message", "user": "U1", "text": "문서 좋네", "ts": "1709683200.000100", **answer}]
    written(root / "general" / "2024-03-05.json", first)
    written(root / "general" / "2024-03-06.json", second)
    return root / "general"


def test_slack(tmp_path: Path) -> None:
    folder = slack_export(tmp_path)
    assert shown(folder, "slack") == [
        ("message", "하늘", "@바다 뭐 해? <급함>"),
        ("message", "바다", "문서 써"),
        ("message", "하늘", "문서 좋네"),  # the thread follows what it answers
        ("system", "U3", "@U3 has joined the channel"),
        ("system", "deploy", "배포 완료"),
        ("media", "바다", ""),
        ("message", "하늘", "다른 얘기"),
    ]
    assert shown(folder / "2024-03-06.json", "slack") == [("message", "하늘", "문서 좋네")]


# Instagram


def broken(text: str) -> str:
    """As Meta writes it: one character for each byte of UTF-8."""
    return text.encode().decode("latin-1")


def instagram_export(path: Path) -> Path:
    said = [
        ("하늘", "뭐 해?"),
        ("바다", "산책 😊"),
        ("하늘", "하늘 sent an attachment."),
        ("하늘", "Liked a message"),
        ("바다", "바다님이 첨부 파일을 보냈습니다."),
        ("하늘", "The video chat ended."),
        ("바다", "사진 봤어?"),
    ]
    messages: list[dict[str, Any]] = [
        {"sender_name": broken(name), "timestamp_ms": 1709596800000 + 60000 * number, "content": broken(text)}
        for number, (name, text) in enumerate(said)
    ]
    messages.append({"sender_name": broken("하늘"), "timestamp_ms": 1709597500000, "photos": [{"uri": "a.jpg"}]})
    messages.append({"sender_name": broken("하늘"), "timestamp_ms": 1709597600000, "is_unsent": True})
    people = [{"name": broken("하늘")}, {"name": broken("바다")}]
    return written(
        path, {"participants": people, "messages": messages[::-1], "title": broken("하늘"), "magic_words": []}
    )


def test_instagram(tmp_path: Path) -> None:
    path = instagram_export(tmp_path / "message_1.json")
    assert shown(path, "instagram") == [
        ("message", "하늘", "뭐 해?"),
        ("message", "바다", "산책 😊"),
        ("media", "하늘", "하늘 sent an attachment."),
        ("media", "하늘", "Liked a message"),
        ("media", "바다", "바다님이 첨부 파일을 보냈습니다."),
        ("media", "하늘", "The video chat ended."),
        ("message", "바다", "사진 봤어?"),
        ("media", "하늘", ""),
        ("deleted", "하늘", ""),
    ]
    guesses = [event.guess for event in read_export(path, "instagram") if isinstance(event, ChatEvent) and event.guess]
    assert guesses == ["attachments", "reactions", "attachments", "calls"]


# LINE

PHONE = """[LINE] 하늘님과의 대화
저장 일시: 2024/03/09 10:00

2024/03/05(화)
오전 9:00\t하늘\t뭐 해?
오전 9:01\t바다\t"목록
1. ""물""
오전 9:00\t하늘\t이건 인용
2024/03/06(수)"
오전 9:02\t하늘\t[스티커]
오전 9:03\t\t하늘님이 사진을 삭제했습니다.
오전 9:04\t바다님이 메시지 전송을 취소했습니다.
오후 12:30\t하늘\t☎ 통화 시간 1:23
오후 12:31\t바다\t"좋아"

2024/03/06(수)
오전 12:05\t하늘\t잘 자
"""
PC_TEXT = """[LINE] 이 하늘님과의 대화
저장 일시: 2024/03/09 10:00

2024.03.05 화요일
09:00 이 하늘 뭐 해?
09:01 바다 목록
1. 물
09:02 이 하늘 [사진]
09:03 가람님이 채팅에 참여했습니다.
09:04 바다 메시지 전송을 취소했습니다.
09:05 바다 그래
"""


def test_line_from_a_phone(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text(PHONE, encoding="utf-8")
    assert shown(path, "line") == [
        ("message", "하늘", "뭐 해?"),
        ("message", "바다", '목록\n1. "물"\n오전 9:00\t하늘\t이건 인용\n2024/03/06(수)'),
        ("media", "하늘", "[스티커]"),
        ("system", "", "하늘님이 사진을 삭제했습니다."),
        ("system", "", "바다님이 메시지 전송을 취소했습니다."),
        ("media", "하늘", "☎ 통화 시간 1:23"),
        ("message", "바다", '"좋아"'),
        ("message", "하늘", "잘 자"),
    ]
    moments = [event.moment for event in read_export(path, "line") if isinstance(event, ChatEvent)]
    assert (moments[5], moments[7]) == (datetime(2024, 3, 5, 12, 30), datetime(2024, 3, 6, 0, 5))


def test_line_from_a_pc(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text(PC_TEXT, encoding="utf-8")
    assert shown(path, "line", ("바다",)) == [
        ("message", "이 하늘", "뭐 해?"),
        ("message", "바다", "목록\n1. 물"),
        ("media", "이 하늘", "[사진]"),
        ("system", "", "가람님이 채팅에 참여했습니다."),
        ("deleted", "바다", "메시지 전송을 취소했습니다."),
        ("message", "바다", "그래"),
    ]


def test_line_exports_can_be_joined(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text(PHONE + "\ufeff" + PHONE, encoding="utf-8")
    events = shown(path, "line")
    assert events[8][0] == "system"
    assert events[:8] == events[9:]


@pytest.mark.parametrize(
    "head",
    [
        "[LINE] Chat history with Haneul\nSaved on: 3/9/2024, 10:00\n\nTue, 03/05/2024\n",
        "[LINE] Haneulとのトーク履歴\n保存日時:2024/03/09 10:00\n\n2024/03/05(火)\n",
    ],
)
def test_line_in_other_languages(tmp_path: Path, head: str) -> None:
    path = tmp_path / "line.txt"
    path.write_text(f"{head}09:00\tHaneul\t안녕\n10:01PM\tBada\t[Photo]\n", encoding="utf-8")
    events = [event for event in read_export(path, "line") if isinstance(event, ChatEvent)]
    assert [(event.moment, event.kind) for event in events] == [
        (datetime(2024, 3, 5, 9, 0), "message"),
        (datetime(2024, 3, 5, 22, 1), "media"),
    ]


# All of them


def exported(folder: Path, format: str) -> Path:
    if format == "slack":
        return slack_export(folder)
    if format == "line":
        (folder / "chat.txt").write_text(PHONE, encoding="utf-8")
        return folder / "chat.txt"
    if format == "kakao":
        (folder / "chat.csv").write_text("2024.3.5 15:00,하늘,안녕\n2024.3.5 15:01,바다,응\n", encoding="utf-8")
        return folder / "chat.csv"
    writers = {"discord": discord_export, "telegram": telegram_export, "instagram": instagram_export}
    return writers[format](folder / "chat.json")


@pytest.mark.parametrize("format", CHAT_FORMATS)
def test_each_format_becomes_rows(tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What 바다 says is learnt, and nothing that the app wrote is in the rows."""
    source, out = exported(tmp_path, format), tmp_path / "rows.jsonl"
    assert main(["data", "import", "--in", str(source), "--out", str(out), "--me", "바다"]) == 0
    text = out.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [turn["role"] for turn in rows[0]["messages"]][:2] == ["user", "assistant"]
    for by_app in ("joined", "Pinned", "레벨 업", "남의 글", "배포 완료", "sent an", "Liked", "스티커", "취소했습니다"):
        assert by_app not in text
    manifest = json.loads((tmp_path / "rows.jsonl.manifest.json").read_text(encoding="utf-8"))
    assert manifest["formats"] == {str(source): format}
    assert APPS[format]
    if format == "instagram":
        assert "2 attachments" in capsys.readouterr().out


def test_several_files_with_one_persona(tmp_path: Path) -> None:
    for format in ("discord", "telegram", "kakao"):
        (tmp_path / format).mkdir()
    sources = [str(exported(tmp_path / format, format)) for format in ("discord", "telegram", "kakao")]
    out = tmp_path / "rows.jsonl"
    command = ["data", "import", "--in", *sources, "--out", str(out), "--me", "바다", "--system", " 너는 바다야. "]
    assert main(command) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 3
    assert all(row["messages"][0] == {"role": "system", "content": "너는 바다야."} for row in rows)
    manifest = json.loads((tmp_path / "rows.jsonl.manifest.json").read_text(encoding="utf-8"))
    assert manifest["options"]["system"] == " 너는 바다야. "
    assert list(manifest["formats"].values()) == ["discord", "telegram", "kakao"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "안녕", "response": "네"}, ["system", "user", "assistant"]),
        (
            {"messages": [{"role": r, "content": "가"} for r in ("system", "user", "assistant")]},
            ["system", "user", "assistant"],
        ),
        ({"prompt": "안녕", "chosen": "네", "rejected": "왜"}, ["system", "user"]),
        ({"prompt": "안녕", "id": "1"}, ["system", "user"]),
    ],
)
def test_a_persona_for_any_row(tmp_path: Path, row: dict[str, Any], expected: list[str]) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(row), encoding="utf-8")
    assert main(["data", "import", "--in", str(source), "--out", str(out), "--system", "친구"]) == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    messages = written.get("messages") or written["prompt"]
    assert [message["role"] for message in messages] == expected
    own = row.get("messages", [{"role": "user"}])[0]["role"] == "system"
    assert messages[0]["content"] == ("가" if own else "친구")
    pairs = ["data", "import", "--in", str(source), "--out", str(out), "--system", "친구", "--style", "completion"]
    assert main(pairs) == 1


@pytest.mark.parametrize("format", ["discord", "telegram", "instagram"])
def test_entries_that_cannot_be_read_are_named(tmp_path: Path, format: str) -> None:
    path = exported(tmp_path, format)
    value = json.loads(path.read_text(encoding="utf-8"))
    value["messages"][-1] = {"id": 1}
    written(path, value)
    errors = [event for event in read_export(path, format) if isinstance(event, DataError)]
    assert [error.problem.startswith("an entry that is no message") for error in errors] == [True]
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(DataError, match="invalid JSON"):
        list(read_export(path, format))


def test_rows_are_no_chat(tmp_path: Path) -> None:
    for name, content in [
        ("a.json", '[{"prompt": "안녕", "response": "네", "type": "a"}]'),
        ("b.json", '{"messages": [{"role": "user", "content": "ts"}]}'),
        ("c.jsonl", '{"guild": 1, "channel": 2}'),
    ]:
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert export_format(tmp_path / name) is None
    assert export_format(tmp_path) is None
