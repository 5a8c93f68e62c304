"""Slurs and claims against groups, and sentences that only speak of them."""

from __future__ import annotations

import pytest

from rlhf.curate.hate import is_hateful, slurs_in


def listed(text: str) -> list[str]:
    return [each for line in text.strip().splitlines() for each in line.strip().split("|")]


HATEFUL = """
    여자들은 다 감정적이야|남자는 다 늑대야|한남들 죽어라|노인들은 고집만 세고 쓸모없어|틀딱들
    전라도 놈들은 다 배신자다
    경상도 사람들은 다 꼴통이야|중국인들은 다 더럽다|짱깨 꺼져|흑인들은 게으르다|난민들 다 돌려보내라
    외국인 노동자들 다 쫓아내
    장애인은 집에만 있어라|정신병자들은 격리해야 한다|게이는 역겹다|무슬림은 테러리스트|개독교
    가난한 사람들은 게을러서 그렇다
    임대 사는 애들이랑 놀지 마|못 배운 놈들은 투표하지 마라|여자가 감히 어디서
"""
HARMLESS = """
    여자도 정치를 할 수 있다|남자 화장실에서 냄새나|노인 학대는 범죄다|전라도 음식은 맛있다|대구는 정말 더럽게 덥다
    일본 쓰레기 처리 방법|부산 바다에 쓰레기가 많아요|중국인 관광객이 늘었다|흑인 음악가가 상을 받았다|한남동 맛집
    홍어 무침
    노인을 민폐라고 보는 건 옳지 않아요|게이는 정신병이 아니다|흑인은 게으르다는 편견을 버리자
    동성애자들도 결혼할 권리가 있다
    장애인 주차 구역에 주차하지 마라|엄마가 밥이나 먹고 가래|여자친구가 못생겼다는 말을 들었어요|거지 같은 날씨네
    아이들이 방을 더럽게 어질렀다|외국인은 투표권이 없나요?
"""


@pytest.mark.parametrize("text", listed(HATEFUL))
def test_hate(text: str) -> None:
    assert is_hateful(text)


@pytest.mark.parametrize("text", ["", *listed(HARMLESS)])
def test_no_hate(text: str) -> None:
    assert not is_hateful(text)


def test_a_word_spoken_about_is_no_slur() -> None:
    assert [each.group() for each in slurs_in("‘맘충’이라는 말은 쓰지 맙시다. 짱깨들")] == ["짱깨"]


def test_one_sentence_does_not_take_back_another() -> None:
    assert is_hateful("편견은 나쁘다. 중국인들은 다 더럽다.")
