"""The judge's form: what is asked, and which replies can be read."""

from __future__ import annotations

import pytest

from rlhf.curate.judge.criteria import CriteriaSet, Criterion, load_criteria
from rlhf.curate.judge.form import FormError, comparison_messages, read_form, reminder
from rlhf.data.records import Message

TWO = CriteriaSet(
    name="t",
    task="답변입니다.",
    steps=("견줍니다.",),
    criteria=tuple(Criterion(name=name, definition="ㄱ", low="ㄴ", high="ㄷ") for name in ("품질", "전반적인 품질")),
)


def marks(reply: str) -> list[tuple[int, int]]:
    return [(first, second) for (first, _), (second, _) in read_form(reply, TWO)]


def test_the_request_shows_criteria_conversation_and_both_answers_in_order():
    criteria = load_criteria("conversation")
    prompt = (
        Message("user", "나 왔어."),
        Message("assistant", "어서 와요!"),
        Message("user", "배고파.", "저녁 여덟 시"),
    )
    system, user = comparison_messages(criteria, prompt, "라면 어때요?", "몰라.")
    assert system["role"] == "system"
    text = user["content"]
    for wanted in (
        *criteria.names,
        *criteria.steps,
        criteria.task,
        "사용자: 배고파.\n저녁 여덟 시",
        "챗봇: 어서 와요!",
    ):
        assert wanted in text
    assert text.index("<답변 1>\n라면 어때요?\n</답변 1>") < text.index("<답변 2>\n몰라.\n</답변 2>")
    assert text.endswith("전반적인 품질: 답변 1 = N, 답변 2 = N")


@pytest.mark.parametrize(
    "reply",
    [
        "[점수]\n품질: 답변 1 = 4, 답변 2 = 3\n전반적인 품질: 답변 1 = 5, 답변 2 = 1",
        "[검토]\n품질: 답변 1 = 1, 답변 2 = 1 정도\n\n"
        "[점수]\n품질: 답변 1 = 4, 답변 2 = 3\n전반적인 품질: 답변 1 = 5, 답변 2 = 1",
        "## [점수]\n- **품질**: 답변 1 = **4**, 답변 2 = **3**\n- **전반적인 품질**: 답변1=5점, 답변2=1점",
        "[점수]\n1. 품질: 답변 1: 4/5 답변 2: 3/5\n2. 전반적인 품질: 답변 1: 5. 답변 2: 1.",
        "[점수] 초안\n품질: 답변 1 = 2, 답변 2 = 2\n"
        "[점수]\n품질: 답변 1 = 4, 답변 2 = 3\n전반적인 품질: 답변 1 = 5 / 답변 2 = 1\n",
    ],
)
def test_forms_that_say_the_same(reply: str):
    assert marks(reply) == [(4, 3), (5, 1)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("품질: 답변 1 = 4, 답변 2 = 0", "0은"),
        ("품질: 답변 1 = 6, 답변 2 = 3", "6은"),
        ("품질: 답변 1 = 45, 답변 2 = 3", "45은"),
        ("품질: 답변 1 = 4.5, 답변 2 = 3", "4.5은"),
        ("품질: 답변 1 = 3/10, 답변 2 = 4/10", "양식과"),
        ("품질: 답변 1 = 4", "양식과"),
        ("품질: 답변 1 = N, 답변 2 = N", "양식과"),
        ("품질: 답변 1 = 4~5, 답변 2 = 3", "양식과"),
        ("품질: 답변 1 = -4, 답변 2 = 3", "양식과"),
        ("", "없습니다"),
        ("품질: 답변 1 = 4, 답변 2 = 3\n품질: 답변 1 = 3, 답변 2 = 4", "여러 번"),
    ],
)
def test_what_is_no_score_is_never_taken_for_one(line: str, said: str):
    with pytest.raises(FormError, match=f"‘품질’ 점수.*{said}"):
        marks(f"[점수]\n{line}\n전반적인 품질: 답변 1 = 5, 답변 2 = 1")


@pytest.mark.parametrize(
    "reply", ["", "좋아요.", "품질: 답변 1 = 4, 답변 2 = 3\n전반적인 품질: 답변 1 = 5, 답변 2 = 1"]
)
def test_a_reply_without_the_part_of_scores_is_not_read(reply: str):
    with pytest.raises(FormError, match=r"\[점수\] 부분"):
        marks(reply)


def test_digits_are_found_where_they_stand():
    reply = "[점수]\n품질: 답변 1 = 4, 답변 2 = 3\n전반적인 품질: 답변 1 = 5, 답변 2 = 1"
    places = [(reply[first], reply[second]) for (_, first), (_, second) in read_form(reply, TWO)]
    assert places == [("4", "3"), ("5", "1")]


def test_the_reminder_says_what_was_wrong_and_shows_the_form_again():
    asked = comparison_messages(TWO, (Message("user", "안녕"),), "가", "나")
    again = reminder(TWO, asked, "  ", "‘품질’ 점수가 없습니다")
    assert again[:2] == asked
    assert [turn["role"] for turn in again] == ["system", "user", "assistant", "user"]
    assert again[2]["content"] == "(빈 답변)"
    assert "‘품질’ 점수가 없습니다" in again[3]["content"]
    assert again[3]["content"].endswith("전반적인 품질: 답변 1 = N, 답변 2 = N")
