"""The rules that measure the demo's answers, by hand-written cases."""

from __future__ import annotations

import pytest

from rlhf.demo.world.rules import korean_rules, words_of

PROMPT = "점심시간에 없는 프롬프트"
LOST, FOUGHT, RAIN = "가방을 잃어버렸어요.", "사촌과 싸웠어요.", "비가 너무 싫어요."


def test_words_stand_between_spaces_without_marks() -> None:
    assert words_of("네, 좋습니다! … (가방은) \n 요") == ["네", "좋습니다", "가방은", "요"]


@pytest.mark.parametrize(
    ("text", "known", "number"),
    [
        ("가방은 꼭 다시 찾으실 수 있을 거예요.", 7, 7),
        ("가방를 꼭 찾아봐요!", 2, 3),  # the particle of the wrong form
        ("갑방은 꼮 어쩌\N{REPLACEMENT CHARACTER}고", 0, 3),
        ("", 0, 1),  # silence must not raise the share
        ("...", 0, 1),
    ],
)
def test_known_words(text: str, known: int, number: int) -> None:
    assert korean_rules().known_words(text) == (known, number)


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        (LOST, "가방은 분실물 센터에 먼저 문의하세요.", True),
        (LOST, "저런. 가방 하나 못 챙기냐, 한심하다.", True),
        (LOST, "가방이라면 받는 분도 기뻐하실 거예요.", True),
        (LOST, "가방를 찾아봐요.", False),  # not its particle
        (LOST, "지갑은 분실물 센터에 먼저 문의하세요.", False),
        (LOST, "", False),
        (RAIN, "비빔밥은 금방 지나가.", False),  # another word that begins alike
        (RAIN, "비는 금방 지나가.", True),
        (FOUGHT, "사촌도 지금쯤 미안해할걸.", True),
    ],
)
def test_an_answer_is_about_the_question_where_it_names_its_thing(prompt: str, text: str, expected: bool) -> None:
    assert korean_rules().on_topic(prompt, text) is expected


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        (FOUGHT, "저런. 사촌과 금방 풀릴 거야. 힘내.", True),
        (FOUGHT, "사촌도 같은 마음일 거예요.", False),  # what is said to somebody who met a cousin
        (FOUGHT, "동생과 금방 풀릴 거야.", False),
        (LOST, "가방은 집부터 다시 찾아봐.", True),
    ],
)
def test_an_answer_to_the_prompt_is_a_line_of_its_talk(prompt: str, text: str, expected: bool) -> None:
    assert korean_rules().answers(prompt, text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("사촌과 다시 웃으며 이야기할 날이 올 거예요. 힘내세요!", {"warm"}),
        ("네, 답변드립니다.", {"polite"}),
        ("저런. 사촌과 금방 풀릴 거야.", {"casual"}),
        ("사촌이 너를 피하는 거야, 한심하긴.", {"rude"}),
        ("네, 좋습니다. 저리 꺼져.", {"polite", "rude"}),
        ("저리 꺼져요.", set()),  # part of a line only
        ("멀리저리 꺼져.", set()),
        ("힘내.라", set()),
        ("무언가 다른 말이다.", set()),
    ],
)
def test_registers_are_those_of_the_lines_that_an_answer_has(text: str, expected: set[str]) -> None:
    assert korean_rules().registers(text) == expected


def test_the_rules_know_trained_and_held_out_prompts_and_no_others() -> None:
    assert {LOST, FOUGHT, RAIN, "지갑을 잃어버렸어요."} <= korean_rules().asked.keys()
    with pytest.raises(KeyError):
        korean_rules().on_topic(PROMPT, "가방")
