"""What the app wrote is nobody's words, in any format, for any name, after any join; what was guessed is said."""

from __future__ import annotations

import base64
import unicodedata
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from rlhf.curate.chats.events import ChatEvent, Guesses, shown_guesses
from rlhf.curate.chats.kakao.lines import kind_of, notice_of
from rlhf.curate.chats.kakao.reader import is_kakao, read_kakao
from tests.support.kakao_exports import APP, FORMATS, Spoken, as_android, as_ios, as_mac, as_pc, names_end_clearly

START = datetime(2024, 3, 5, 9, 0)
TEXTS = [name for name in FORMATS if name.endswith(".txt")]


def events_of(folder: Path, name: str, content: bytes, known: tuple[str, ...] = ()) -> list[ChatEvent]:
    path = folder / name
    path.write_bytes(content)
    assert is_kakao(path)
    events = list(read_kakao(path, known))
    assert all(isinstance(event, ChatEvent) for event in events)
    return [event for event in events if isinstance(event, ChatEvent)]


def spoken(events: list[ChatEvent]) -> list[Spoken]:
    return [(event.moment, event.sender, event.text) for event in events if event.kind == "message"]


def people(chat: list[Spoken]) -> list[Spoken]:
    return [each for each in chat if each[1] != APP and kind_of(each[2])[0] == "message"]


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


# By hand, each kind

NOTICES = [
    "졸린 무지님이 들어왔습니다.",
    "노을 | 청강님이 들어왔습니다.",
    "배고픈 튜브님이 나갔습니다.",
    "배고픈 튜브님을 내보냈습니다.",
    "가람님이 배고픈 튜브님을 내보냈습니다.",
    "가람님이 한결 (2동)님과 ★별★님을 초대했습니다.",
    "가람님이 한결님을 초대하였습니다.",
    "이슬/97/서울님이 들어왔습니다.운영정책을 위반한 메시지로 신고 접수 시 카카오톡 이용에 제한이 있을 수 있습니다.",
    "이슬님이 들어왔습니다.타인, 기관 등의 사칭으로 인한 금전 요구 등에 주의해 주세요. 자세히 : 고객센터",
    "가람님이 한결님에게 부방장 권한을 부여했습니다.",
    "한결님이 방장이 되었습니다.",
    "한결님을 부방장으로 임명하였습니다.",
    "방장이 가람님에서 한결님으로 변경되었습니다.",
    "가람님이 채팅방 이름을 '봄 : 소풍'(으)로 변경하였습니다.",
    "가람님이 공지를 등록했습니다.",
    "가람님이 보이스룸을 시작했습니다.",
    "채팅방 관리자가 메시지를 가렸습니다.",
    "가람님이 메시지를 가렸습니다.",
    "불법촬영물등 식별 및 게재제한 조치 안내",
    "그룹 오픈채팅방에서 동영상・압축파일 전송 시 전기통신사업법에 따라 전송이 제한될 수 있습니다.",
]
CHATTER = [
    "늦는 사람은 먼저 연락 줘",
    "아까 들어왔습니다",
    "나갔습니다. 곧 와요",
    "내일 방을 치우기로 했습니다.",
    "공지 확인했어?",
    "사진은 집에 가서 보낼게",
    "개인정보는 쓰지 마세요",
    "회의실을 예약했습니다.",
    "카카오톡 말고 전화로 해",
]


@pytest.mark.parametrize("notice", NOTICES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_notice_is_nobodys_words(tmp_path: Path, name: str, notice: str) -> None:
    chat = [(at(0), "하늘", "몇 시에 봐?"), (at(1), "바다", "세 시"), (at(2), APP, notice), (at(3), "하늘", "그래")]
    assert spoken(events_of(tmp_path, name, FORMATS[name](chat))) == people(chat)


@pytest.mark.parametrize("line", CHATTER)
@pytest.mark.parametrize("name", FORMATS)
def test_a_line_of_a_person_stays_in_the_message(tmp_path: Path, name: str, line: str) -> None:
    chat = [(at(0), "하늘", "있잖아"), (at(1), "바다", f"그게\n{line}"), (at(3), "하늘", "그래")]
    assert spoken(events_of(tmp_path, name, FORMATS[name](chat))) == chat


@pytest.mark.parametrize(
    ("text", "kind", "label"),
    [
        ("사진", "media", "pictures and videos"),
        ("(사진)", "media", "pictures and videos"),
        ("<사진>", "media", "pictures and videos"),
        ("사진 3장", "media", "pictures and videos"),
        ("Photo", "media", "pictures and videos"),
        ("이모티콘", "media", "emoticons"),
        ("음성메시지", "media", "voice messages"),
        ("<사진 읽지 않음>", "media", "unread or expired media"),
        ("<동영상 읽지 않음>", "media", "unread or expired media"),
        ("<파일 읽지 않음>", "media", "unread or expired media"),
        ("<음성메시지 읽지 않음>", "media", "unread or expired media"),
        ("기간이 만료된 사진입니다.", "media", "unread or expired media"),
        (f"{'0123456789abcdef' * 4}.jpg", "media", "names of files"),
        (f"{'ab' * 32}.jpg\n{'cd' * 32}.mp4", "media", "names of files"),
        ("KakaoTalk_20240305_101112123.jpg", "media", "names of files"),
        ("파일: 일정.pdf", "media", "files"),
        ("지도: 서울 중구 세종대로 110", "media", "maps"),
        ("연락처: 가람", "media", "contacts"),
        ("샵검색: #날씨", "media", "searches"),
        ("선물과 메시지를 보냈습니다.", "media", "gifts"),
        ("선물을 보냈습니다.", "media", "gifts"),
        ("톡게시판 '투표': 점심\n메뉴", "media", "polls and posts"),
        ("투표가 등록되었습니다.", "media", "polls and posts"),
        ("보이스톡 0:17", "media", "calls"),
        ("페이스톡 해요", "media", "calls"),
        ("그룹콜 1:02:03", "media", "calls"),
        ("라이브톡을 시작했습니다.", "media", "calls"),
        ("톡캘린더: 봄 소풍", "media", "calendar"),
        ("일정이 등록되었습니다.", "media", "calendar"),
        ("30,400원을 받으세요.", "media", "pay"),
        ("송금봉투가 도착했어요.", "media", "pay"),
        ("삭제된 메시지입니다.", "deleted", "deleted or hidden messages"),
        ("메시지가 삭제되었습니다.", "deleted", "deleted or hidden messages"),
        ("채팅방 관리자가 메시지를 가렸습니다.", "deleted", "deleted or hidden messages"),
        ("This message was deleted.", "deleted", "deleted or hidden messages"),
        ("사진 보냈어", "message", ""),
        ("파일: 여기\n봐 줘", "message", ""),
        ("보이스톡 걸어도 돼?", "message", ""),
        ("(웃음)", "message", ""),
        ("선물 보냈어!", "message", ""),
        ("지도 봐", "message", ""),
        ("연락처 줘", "message", ""),
        ("메시지가 삭제됐네", "message", ""),
        ("https://example.com/a.jpg", "message", ""),
    ],
)
def test_placeholders_are_whole_messages(text: str, kind: str, label: str) -> None:
    assert kind_of(text) == (kind, label)
    assert kind_of(unicodedata.normalize("NFC", unicodedata.normalize("NFD", text))) == (kind, label)


# Any sequence, in any format

names = st.sampled_from(
    ["다온", "[총무] 새봄", "팀:기획", "Lee J. H.", "하나 (회사)", "졸린 무지", "노을 | 청강", "가 : 나"]
)
said = st.lists(
    st.one_of(
        st.sampled_from(
            [*CHATTER, "약속 : 7시 : 역 앞", "오전 9:00", "저장한 날짜", "2024년 1월 3일 수요일", "네", ""]
        ),
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=20),
    ),
    min_size=1,
    max_size=3,
).map(lambda lines: unicodedata.normalize("NFC", "\n".join(lines).strip()))
placeholders = st.sampled_from(
    ["사진", "<사진 읽지 않음>", "지도: 시청", "선물과 메시지를 보냈습니다.", "삭제된 메시지입니다."]
)
entries = st.one_of(
    st.tuples(names, said), st.tuples(st.just(APP), st.sampled_from(NOTICES)), st.tuples(names, placeholders)
)


KNOWN = ("가 : 나",)  # as --me gives it


@st.composite
def chats(draw: st.DrawFn) -> list[Spoken]:
    moments = sorted(draw(st.lists(st.integers(0, 3 * 24 * 60), min_size=1, max_size=8)))
    chat = [(at(minutes), *draw(entries)) for minutes in moments]
    assume(names_end_clearly(chat, KNOWN))
    assume(any(name != APP for _, name, _ in chat))
    assume(all(text and not any(map(notice_of, text.split("\n"))) for _, name, text in chat if name != APP))
    return chat


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chat=chats())
def test_people_in_people_out(tmp_path: Path, name: str, chat: list[Spoken]) -> None:
    assert spoken(events_of(tmp_path, name, FORMATS[name](chat), KNOWN)) == people(chat)


@pytest.mark.parametrize("second", TEXTS)
@pytest.mark.parametrize("first", TEXTS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=chats(), two=chats())
@example(one=[(START, "다온", "사진")], two=[(START, "다온", "님을 내보냈습니다.")])
def test_exports_of_any_apps_can_be_joined(
    tmp_path: Path, first: str, second: str, one: list[Spoken], two: list[Spoken]
) -> None:
    joined = FORMATS[first](one) + FORMATS[second](two)
    assert spoken(events_of(tmp_path, "chat.txt", joined, KNOWN)) == people(one) + people(two)


def test_headers_that_come_again(tmp_path: Path) -> None:
    """A header without a byte order mark, in a file with plain line ends, in either order of its lines."""
    chat = [(at(0), "하늘", "자니?"), (at(1), "바다", "아직 안 자")]
    joined = (as_pc(chat) + as_ios(chat).removeprefix(b"\xef\xbb\xbf") + as_android(chat)).replace(b"\r\n", b"\n")
    joined += "저장한 날짜 : 2024-03-11 22:14:03\n\n하늘 님과 카카오톡 대화\n".encode()
    joined += as_pc(chat).partition(b"\r\n\r\n")[2]
    events = events_of(tmp_path, "chat.txt", joined)
    assert spoken(events) == chat * 4
    assert [event.guess for event in events if event.kind == "system"] == ["headers of joined exports"] * 3
    csv = as_mac(chat)
    assert spoken(events_of(tmp_path, "chat.csv", csv + b"\xef\xbb\xbf" + csv)) == chat * 2


def test_a_header_in_a_message_is_no_header(tmp_path: Path) -> None:
    pasted = "이렇게 시작해\n산책 모임 님과 카카오톡 대화\n저장한 날짜 : 2024-03-09 10:00:00"
    chat = [(at(0), "하늘", pasted), (at(1), "바다", "저장한 날짜 : 2024-03-09\n이거?")]
    for name in ("android.txt", "ios.txt", "mac.csv"):
        assert spoken(events_of(tmp_path, name, FORMATS[name](chat))) == chat


@pytest.mark.parametrize("form", ["attachment", "body", "plain"])
def test_e_mailed_exports(tmp_path: Path, form: str) -> None:
    chat = [(at(0), "하늘", "자니?\n대답해"), (at(1), "바다", "아직 안 자")]
    export = as_android(chat)
    head = b"From: a@example.com\r\nSubject: =?utf-8?B?7Lm07Lm07Jik?=\r\nMIME-Version: 1.0\r\n"
    text = b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: base64\r\n'
    encoded = base64.encodebytes(export)
    mails = {
        "plain": export.replace(b"\r\n", b"\n"),
        "body": head + text + b"\r\n" + encoded,
        "attachment": head
        + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
        + b"--b\r\nContent-Type: text/plain\r\n\r\nsee file\r\n--b\r\n"
        + text
        + b'Content-Disposition: attachment; filename="KakaoTalkChats.txt"\r\n\r\n'
        + encoded
        + b"\r\n--b--\r\n",
    }
    assert spoken(events_of(tmp_path, "chat.eml", mails[form])) == chat


@pytest.mark.parametrize("name", FORMATS)
def test_decomposed_hangul(tmp_path: Path, name: str) -> None:
    chat = [(at(0), "최민호", "밥 먹었어?"), (at(1), APP, "졸린 무지님이 들어왔습니다."), (at(2), "하늘", "사진")]
    content = unicodedata.normalize("NFD", FORMATS[name](chat).decode()).encode()
    events = events_of(tmp_path, name, content)
    assert [(event.kind, event.sender, event.text) for event in events if event.kind != "system"] == [
        ("message", "최민호", "밥 먹었어?"),
        ("media", "하늘", "사진"),
    ]


# Names with a colon on phones


def test_a_name_with_a_colon_that_the_user_gives(tmp_path: Path) -> None:
    chat = [(at(0), "a, b : c", "저도요"), (at(1), "하늘", "네 : 좋아요")]
    for name in ("android.txt", "ios.txt", "canadian_android.txt"):
        assert spoken(events_of(tmp_path, name, FORMATS[name](chat), ("a, b : c",))) == chat


def test_a_name_with_a_colon_that_comes_again(tmp_path: Path) -> None:
    chat = [
        (at(0), "기획 : 가람", "저도요"),
        (at(1), "기획 : 가람", "시간 : 세 시"),
        (at(2), "기획 : 한결", "네"),
        (at(3), "기획 : 한결", "좋아요"),
        (at(4), "하늘", "장소 : 역"),
        (at(5), "하늘", "시간 : 두 시"),
        (at(6), "하늘", "이따 봐"),
    ]
    events = events_of(tmp_path, "android.txt", as_android(chat))
    assert spoken(events) == chat
    assert [event.guess for event in events] == ['where a name with " : " ends'] * 4 + [""] * 3


def test_a_person_who_reports_a_leave_on_a_phone(tmp_path: Path) -> None:
    """Android marks neither notices nor names: 하늘 is known from another message, 부서 : 가람 from none."""
    chat = [
        (at(0), "하늘", "가람님이 나갔습니다."),
        (at(1), "하늘", "어?"),
        (at(2), APP, "부서 : 가람님이 나갔습니다."),
    ]
    events = events_of(tmp_path, "android.txt", as_android(chat))
    assert spoken(events) == chat[:2]
    assert (events[2].kind, events[2].sender, events[2].guess) == ("system", "부서 : 가람", "notices: joins and leaves")


# Cut messages


def test_android_cuts_at_500_characters(tmp_path: Path) -> None:
    text = "가" * 498
    chat = [(at(0), "하늘", f"{text}나다"), (at(1), "하늘", f"{text}나"), (at(2), "하늘", f"{text}😊")]
    events = events_of(tmp_path, "android.txt", as_android(chat))
    assert [event.kind for event in events] == ["cut", "message", "cut"]  # an emoji counts as two
    longer = [*chat, (at(3), "바다", text * 2)]
    assert {event.kind for event in events_of(tmp_path, "a.txt", as_android(longer))} == {"message"}
    assert {event.kind for event in events_of(tmp_path, "pc.txt", as_pc(chat))} == {"message"}


# What was guessed is said


def test_guesses_are_counted_and_shown(tmp_path: Path) -> None:
    chat = [(at(0), "하늘", "발표 언제야?"), *((at(n), APP, f"손님 {n}님이 들어왔습니다.") for n in range(1, 6))]
    chat += [(at(9), "바다", "사진"), (at(10), "바다", "곧")]
    guesses = Guesses()
    for event in events_of(tmp_path, "pc.txt", as_pc(chat)):
        guesses.add(event)
    recorded = guesses.recorded(str)
    assert recorded == {
        "notices: joins and leaves": {
            "count": 5,
            "first": [f"line {5 + n}: 손님 {n}님이 들어왔습니다." for n in (1, 2, 3)],
        },
        "pictures and videos": {"count": 1, "first": ["line 11: 바다: 사진"]},
    }
    assert list(shown_guesses("pc.txt", recorded))[1:3] == [
        "  5 notices: joins and leaves",
        "    line 6: 손님 1님이 들어왔습니다.",
    ]


@pytest.mark.parametrize("name", ["android.txt", "ios.txt"])
def test_a_notice_that_the_app_marks_is_no_guess(tmp_path: Path, name: str) -> None:
    chat = [(at(0), "하늘", "응"), (at(1), APP, "졸린 무지님이 들어왔습니다.")]
    assert [event.guess for event in events_of(tmp_path, name, FORMATS[name](chat))] == ["", ""]


def test_the_bot_of_the_app_is_nobody(tmp_path: Path) -> None:
    events = events_of(tmp_path, "pc.txt", as_pc([(at(0), "방장봇", "가람님 환영합니다!"), (at(1), "하늘", "안녕")]))
    assert [(event.kind, event.guess) for event in events] == [
        ("system", "messages of KakaoTalk's own bots"),
        ("message", ""),
    ]
