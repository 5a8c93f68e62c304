"""Exports of KakaoTalk become the events they were made from, in every format."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rlhf.curate.chats.events import ChatEvent
from rlhf.curate.chats.kakao.lines import kind_of
from rlhf.curate.chats.kakao.reader import is_kakao, read_kakao
from rlhf.errors import DataError
from tests.support.kakao_exports import FORMATS, Spoken, as_mac, as_pc, names_end_clearly


def parsed(folder: Path, name: str, content: bytes) -> list[ChatEvent]:
    path = folder / name
    path.write_bytes(content)
    assert is_kakao(path)
    events = list(read_kakao(path))
    assert all(isinstance(event, ChatEvent) for event in events)
    return [event for event in events if isinstance(event, ChatEvent)]


# Any message survives any format

names = st.sampled_from(["다온", "[총무] 새봄", "팀:기획", "Lee J. H.", "하나 (회사)", "가람😊", '"별"'])
words = st.sampled_from(
    [
        "밥 먹었어?",
        "약속 : 7시 : 역 앞",
        "오전 9:00",
        "다온님이 나갔습니다",
        "[공지] 읽어 줘",
        '"따옴표", 쉼표',
        "😊🙏",
        "사진 봤어",
        "2024년 1월 3일 수요일",
        "2024. 1. 3. 오후 2:10",
        "-----",
        "ㅋㅋㅋㅋ",
        "https://example.com/?a=1&b=2",
        "",
    ]
)
free = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t", exclude_characters="\ufeff"), max_size=30
)
texts = st.lists(st.one_of(words, free), min_size=1, max_size=4).map("\n".join)
minutes = st.integers(0, 3 * 24 * 60)


@st.composite
def chats(draw: st.DrawFn) -> list[Spoken]:
    """Messages over three days, in order of time, each text neither empty nor a placeholder."""
    start = datetime(2024, 3, 5, 0, 0)
    moments = sorted(draw(st.lists(minutes, min_size=1, max_size=6)))
    chat = [
        (start + timedelta(minutes=moment), draw(names), unicodedata.normalize("NFC", draw(texts).strip()))
        for moment in moments
    ]
    assume(names_end_clearly(chat))
    assume(all(text and kind_of(text)[0] == "message" for _, _, text in chat))
    return chat


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chat=chats())
def test_text_in_is_text_out(tmp_path: Path, name: str, chat: list[Spoken]) -> None:
    events = parsed(tmp_path, name, FORMATS[name](chat))
    assert [(event.moment, event.sender, event.text, event.kind) for event in events] == [
        (*spoken, "message") for spoken in chat
    ]


@pytest.mark.parametrize("name", ["android.txt", "ios.txt", "ios_2025.txt", "mac.csv"])
def test_a_pasted_export_stays_inside_its_message(tmp_path: Path, name: str) -> None:
    """Phones and macOS mark where a message ends, so nothing in it is a header."""
    pasted = (
        "이거 봐\n2024년 3월 4일 오후 1:10, 다온 : 늦을 듯\n2024. 3. 4. 오후 1:11, 다온 : 미안\n[다온] [오후 1:12] 진짜"
    )
    chat = [(datetime(2024, 3, 5, 9, 0), "새봄", pasted), (datetime(2024, 3, 6, 9, 0), "다온", "그만해")]
    events = parsed(tmp_path, name, FORMATS[name](chat))
    assert [event.text for event in events] == [pasted, "그만해"]


@pytest.mark.parametrize("name", [name for name in FORMATS if name.endswith(".txt")])
def test_an_editor_that_wrote_plain_line_ends_does_no_harm(tmp_path: Path, name: str) -> None:
    chat = [
        (datetime(2024, 3, 5, 9, 0), "팀:기획", "목록\n1. 물\n\n2. 빵"),
        (datetime(2024, 3, 5, 23, 59), "다온", "넵"),
        (datetime(2024, 3, 6, 0, 5), "팀:기획", "끝"),
    ]
    events = parsed(tmp_path, name, FORMATS[name](chat).replace(b"\r\n", b"\n"))
    assert [(event.moment, event.sender, event.text) for event in events] == chat


def test_korean_windows_encoding(tmp_path: Path) -> None:
    chat = [(datetime(2024, 3, 5, 12, 30), "다온", "점심 뭐 먹을래?"), (datetime(2024, 3, 5, 12, 31), "새봄", "국수")]
    content = as_pc(chat).decode().encode("cp949")
    assert [event.text for event in parsed(tmp_path, "chat.txt", content)] == ["점심 뭐 먹을래?", "국수"]


def test_utf_8_without_hangul_is_not_taken_for_korean_windows(tmp_path: Path) -> None:
    """The bytes of ¡ are 징 in CP949."""
    chat = [(datetime(2024, 3, 5, 12, 30), "Lee", "¡"), (datetime(2024, 3, 5, 12, 31), "Ann", "😊")]
    assert [event.text for event in parsed(tmp_path, "chat.csv", as_mac(chat))] == ["¡", "😊"]


# Notices


PC = """산책 모임 님과 카카오톡 대화
저장한 날짜 : 2024-03-09 10:00:00

--------------- 2024년 3월 5일 화요일 ---------------
다온님이 새봄님과 팀:기획님을 초대하였습니다.
[다온] [오전 12:05] 다들 안녕
아까 회의에서 오래 이야기하다가 중간에 전화를 받으러 나간 옆 팀 김 대리님이 나갔습니다.
[새봄] [오후 12:30] 반가워
새봄님이 나갔습니다.
처음본사람님이 들어왔습니다.운영정책을 위반한 메시지로 신고 접수 시 이용에 제한이 있을 수 있습니다.
안내가 이어집니다
[] [오후 12:31] 채팅방 이름이 바뀌었습니다.
채팅방 관리자가 메시지를 가렸습니다.
[다온] [오후 1:00]
"""


def test_notices_of_the_pc_app_by_hand(tmp_path: Path) -> None:
    events = parsed(tmp_path, "chat.txt", PC.encode())
    assert [(event.kind, event.sender, event.line) for event in events] == [
        ("system", "다온", 5),
        ("message", "다온", 6),
        ("message", "새봄", 8),
        ("system", "새봄", 9),
        ("system", "처음본사람", 10),
        ("system", "", 12),
        ("system", "", 13),
        ("message", "다온", 14),
    ]
    assert (
        events[1].text
        == "다들 안녕\n아까 회의에서 오래 이야기하다가 중간에 전화를 받으러 나간 옆 팀 김 대리님이 나갔습니다."
    )
    assert events[1].moment == datetime(2024, 3, 5, 0, 5)
    assert events[2].moment == datetime(2024, 3, 5, 12, 30)
    assert events[4].text.endswith("있습니다.\n안내가 이어집니다")
    assert events[7].text == ""


@pytest.mark.parametrize(
    ("line", "sender"),
    [
        ("2024년 3월 5일 오후 1:40, 다온님이 새봄님을 초대했습니다.", "다온"),
        ("2024. 3. 5. 오후 1:40: 다온님이 새봄님을 초대했습니다.", "다온"),
        ("2024. 3. 5. 오후 1:40: 팀:기획님이 나갔습니다.", "팀:기획"),
        ("Mar 5, 2024, 1:40 PM: Dana invited Sam.", "Dana"),
    ],
)
def test_notices_of_the_phone_apps(tmp_path: Path, line: str, sender: str) -> None:
    (event,) = parsed(tmp_path, "chat.txt", f"{line}\r\n".encode())
    assert (event.kind, event.sender, event.moment) == ("system", sender, datetime(2024, 3, 5, 13, 40))


@pytest.mark.parametrize(
    "line",
    [
        "2024년 3월 5일 오후 1:40, Dana : hi",
        "2024年3月5日 午後1:40, Dana : hi",
        "March 5, 2024 at 1:40\u202fp.m., Dana : hi",
        "5 March 2024 at 13:40, Dana : hi",
        "2024년 3월 5일 13:40, Dana : hi",
        "2024. 3. 5. 13:40, Dana : hi",
        "1:40pm, March 5, 2024, Dana : hi",
        "Mar 5, 2024, 1:40 PM, Dana : hi",
        "Mar 5, 2024, 1:40\u202fPM, Dana : hi",
        "March 5, 2024 at 1:40 PM, Dana : hi",
    ],
)
def test_ways_to_write_a_moment(tmp_path: Path, line: str) -> None:
    (event,) = parsed(tmp_path, "chat.txt", f"{line}\r\n".encode())
    assert (event.moment, event.sender, event.text) == (datetime(2024, 3, 5, 13, 40), "Dana", "hi")


def test_a_csv_notice_names_its_sender(tmp_path: Path) -> None:
    content = """Date,User,Message
2024-03-05 09:00:00,"다온","다온님이 나갔습니다."
2024-03-05 09:01:00,"새봄","다온님이 나갔습니다."
2024-03-05 09:02:00,"다온","다온 invited 새봄 and."
"""
    events = parsed(tmp_path, "chat.csv", content.encode())
    assert [event.kind for event in events] == ["system", "message", "system"]


def test_a_csv_without_header(tmp_path: Path) -> None:
    events = parsed(tmp_path, "chat.csv", "2024.3.5 15:00,다온,안녕\n2024.3.5 15:01,새봄,응\n".encode())
    assert [(event.moment.hour, event.sender, event.text) for event in events] == [
        (15, "다온", "안녕"),
        (15, "새봄", "응"),
    ]


# Bad files


def refused(folder: Path, name: str, content: bytes) -> DataError:
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_kakao(path))
    return caught.value


def test_a_file_cut_inside_a_character(tmp_path: Path) -> None:
    error = refused(tmp_path, "chat.txt", PC.encode()[: PC.encode().index("반가워".encode()) + 4])
    assert error.where.endswith("chat.txt:8")
    assert error.problem == "the file ends in the middle of a character"


def test_utf_16_is_read(tmp_path: Path) -> None:
    assert parsed(tmp_path, "chat.txt", PC.encode("utf-16")) == parsed(tmp_path, "chat2.txt", PC.encode())


def test_utf_16_that_is_cut_names_the_file(tmp_path: Path) -> None:
    assert "UTF-16" in refused(tmp_path, "chat.txt", PC.encode("utf-16")[:-1]).problem


def test_plain_text_is_no_export(tmp_path: Path) -> None:
    path = tmp_path / "chat.txt"
    path.write_text("오늘의 일기\n날씨 맑음\n", encoding="utf-8")
    assert not is_kakao(path)
    assert "no line starts a message" in refused(tmp_path, "chat.txt", path.read_bytes()).problem


def test_an_open_quote_names_its_line(tmp_path: Path) -> None:
    error = refused(tmp_path, "c.csv", 'Date,User,Message\n2024-03-05 09:00:00,"다온","안녕\n끝\n'.encode())
    assert error.where.endswith("c.csv:2")
    assert "invalid CSV" in error.problem


def test_bad_rows_are_errors_among_the_events(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(
        "Date,User,Message\n어제,다온,안녕\n2024-03-05 09:00:00,다온\n2024-03-05 09:00:00,다온,a\0b\n".encode()
    )
    found = list(read_kakao(path))
    assert [event.where.rpartition(":")[2] for event in found if isinstance(event, DataError)] == ["2", "3", "4"]


def test_messages_before_the_first_date_of_a_cut_head(tmp_path: Path) -> None:
    path = tmp_path / "chat.txt"
    path.write_text("\n".join(["[다온] [오전 12:01] 앞", *PC.splitlines()[3:]]), encoding="utf-8")
    first, *rest = read_kakao(path)
    assert isinstance(first, DataError)
    assert first.where.endswith(":1")
    assert len(rest) == 8
