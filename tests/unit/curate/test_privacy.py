"""Identifiers, contacts and addresses are masked; everyday text is not touched."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.curate.privacy import MASKS, find_personal, mask_personal, require_privacy
from rlhf.errors import ConfigError


def test_a_message_with_a_number_and_a_mail_by_hand() -> None:
    text = "번호는 010-9876-5432, 메일은 haneul@example.org 예요 😊"
    assert mask_personal(text) == ("번호는 [전화번호], 메일은 [이메일] 예요 😊", {"PHONE": 1, "EMAIL": 1})
    assert find_personal(text) == {"PHONE": 1, "EMAIL": 1}


def test_the_same_kind_twice_is_counted_twice() -> None:
    masked, counts = mask_personal("01012345678 아니면 +82 10-2345-6789 로 전화 줘")
    assert masked == "[전화번호] 아니면 [전화번호] 로 전화 줘"
    assert counts == {"PHONE": 2}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("계좌는 국민은행 123-45-678901 로 보내줘", "ACCOUNT"),
        ("카드번호 4111-1111-1111-1111 이야", "CARD"),
        ("주민번호가 900101-1234568 맞지?", "RRN"),
        ("서울시 강남구 테헤란로 123 201호로 와", "ADDRESS"),
        ("수원시 팔달구 인계동 1122-3 이야", "ADDRESS"),
        ("서버는 192.168.0.7 이야", "IP"),
        ("서버는 2001:db8:0:1:2:3:4:5 이야", "IP"),
        ("대구 중구 동성로 12 앞에서 봐", "ADDRESS"),
    ],
)
def test_other_kinds(text: str, label: str) -> None:
    masked, counts = mask_personal(text)
    assert counts == {label: 1}
    assert MASKS[label] in masked


@pytest.mark.parametrize(
    "text",
    [
        "민수야 3월 5일 12:30에 보자",
        "김치찌개 9,000원, 돈까스 11,500원",
        "https://example.com/a?b=1 여기 봐",
        "전화줘 2번 출구야",
        "친구 운동 30분 했대",
        "역시 운동 30분이 최고",
        "다시 하면 10개는 되겠다",
        "반드시 이동 3시간 전에",
        "std::array<int, 5> myArray; std::cout << 1;",
        "어제 일정 다시 정리하면\n2023년 5월",
        "ㅋㅋㅋㅋ 100점!!",
        "",
    ],
)
def test_everyday_text_is_left(text: str) -> None:
    assert mask_personal(text) == (text, {})
    assert find_personal(text) == {}


@settings(max_examples=50, deadline=None)
@given(
    st.text(alphabet="가나다라 ,.!?ㅋㅎ\n😊ab", max_size=30), st.text(alphabet="가나다라 ,.!?ㅋㅎ\n😊ab", max_size=30)
)
def test_only_the_number_goes(before: str, after: str) -> None:
    assert mask_personal(f"{before} 010-2222-3333 {after}") == (f"{before} [전화번호] {after}", {"PHONE": 1})


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf.errors.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[pii\]' in the checkout, or --keep-pii"):
        require_privacy("--keep-pii to leave it in")
    with pytest.raises(ConfigError, match="needs ko-pii, which is not installed"):
        mask_personal("아무 말")
