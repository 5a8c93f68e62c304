from __future__ import annotations

import dataclasses

import pytest

from rlhf.data.records import (
    Demonstration,
    MarkedAnswers,
    Message,
    Prompt,
    Ranking,
    demonstration_of,
    marked_of,
    prompt_of,
)
from rlhf.errors import DataError

SYSTEM = Message("system", "친절하게 답한다.")
ASK = Message("user", "점심 뭐 먹을까?")
ANSWER = Message("assistant", "김밥은 어떠세요?")
AGAIN = Message("user", "어제 먹었어.")


@pytest.mark.parametrize(
    "turns",
    [
        (ASK, ANSWER),
        (SYSTEM, ASK, ANSWER),
        (ASK, ANSWER, AGAIN, ANSWER),
        (SYSTEM, ASK, ANSWER, AGAIN, ANSWER),
    ],
)
def test_demonstration_takes_alternating_turns(turns):
    assert Demonstration(turns).messages == turns
    assert Prompt(turns[:-1]).messages == turns[:-1]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ((), "without turns"),
        ((SYSTEM,), "ends in a turn by system"),
        ((ANSWER,), "turn 1 is by assistant instead of user"),
        ((SYSTEM, ANSWER), "turn 2 is by assistant instead of user"),
        ((ASK, AGAIN, ANSWER), "turn 2 is by user instead of assistant"),
        ((ASK, ANSWER, SYSTEM, ANSWER), "turn 3 is by system instead of user"),
        ((SYSTEM, SYSTEM, ASK, ANSWER), "turn 2 is by system instead of user"),
        ((ASK,), "ends in a turn by user"),
        ((ASK, ANSWER, AGAIN), "ends in a turn by user"),
    ],
)
def test_demonstration_refuses_other_orders(turns, message):
    with pytest.raises(DataError, match=message) as caught:
        Demonstration(turns)
    assert caught.value.where == ""


def test_prompt_ends_in_a_user_turn():
    with pytest.raises(DataError, match="ends in a turn by assistant"):
        Prompt((ASK, ANSWER))


@pytest.mark.parametrize("content", ["", " \n\t", "\u3000"])
def test_message_text_is_not_blank(content):
    with pytest.raises(DataError, match="is empty"):
        Message("user", content)


def test_message_refuses_unknown_role_non_text_and_stray_input():
    with pytest.raises(DataError, match="role 'bot'"):
        Message("bot", "안녕")
    with pytest.raises(DataError, match="int, not text"):
        Message("user", 3)
    with pytest.raises(DataError, match="assistant turn with an input"):
        Message("assistant", "네.", input="표")
    assert Message("user", "표를 읽어 줘.", input="가,나").input == "가,나"


def test_ranking_properties():
    ranking = Ranking((ASK,), ("가", "나", "다", "라"), (3, 1, 1, 2))
    assert ranking.num_answers == 4
    assert ranking.best == 1  # the first of the two answers of rank 1
    assert not ranking.all_tied
    assert Ranking((ASK,), ("가", "나"), (2, 2)).all_tied
    assert Ranking((ASK,), ("가", "나", "다"), (4, 3, 2)).best == 2  # rank 1 need not occur


@pytest.mark.parametrize(
    ("responses", "ranks", "scores", "message"),
    [
        (("가",), (1,), None, "1 answer"),
        (("가", " "), (1, 2), None, "answer 2 is empty"),
        (("가", "나"), (1,), None, "1 ranks for 2 answers"),
        (("가", "나"), (1, 2, 3), None, "3 ranks for 2 answers"),
        (("가", "나"), (0, 1), None, "rank 0"),
        (("가", "나"), (1, 1.5), None, "rank 1.5"),
        (("가", "나"), (True, 2), None, "rank True"),
        (("가", "나"), (1, 2), (4.0,), "1 scores for 2 answers"),
        (("가", "나"), (1, 2), (4.0, float("nan")), "score nan"),
        (("가", "나"), (1, 2), (4.0, "3"), "score '3'"),
    ],
)
def test_ranking_refuses(responses, ranks, scores, message):
    with pytest.raises(DataError, match=message):
        Ranking((ASK,), responses, ranks, scores=scores)


def test_ranking_prompt_ends_in_a_user_turn():
    with pytest.raises(DataError, match="ends in a turn by assistant"):
        Ranking((ASK, ANSWER), ("가", "나"), (1, 2))


def test_marked_answers_have_a_mark_each():
    prompt = (Message("user", "뭐 해?"),)
    marked = MarkedAnswers(prompt, ("쉬어요.", "몰라."), (False, True), "thumbs")
    assert prompt_of(marked) == Prompt(prompt, "thumbs", "몰라.")
    assert prompt_of(MarkedAnswers(prompt, ("몰라.",), (False,))).reference == ""
    for responses, good in (((), ()), (("쉬어요.",), ()), (("쉬어요.", " "), (True, False))):
        with pytest.raises(DataError, match=r"verdicts for|is empty"):
            MarkedAnswers(prompt, responses, good)


def test_the_best_answers_of_a_ranking_are_good_and_the_worst_bad():
    ranking = Ranking((Message("user", "뭐 해?"),), ("가", "나", "다", "라"), (2, 1, 3, 1), "x")
    assert marked_of(ranking) == MarkedAnswers(ranking.prompt, ("나", "다", "라"), (True, False, True), "x")


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ASK.content = "다른 말"


def test_conversions_keep_prompt_source_and_best_answer():
    ranking = Ranking((SYSTEM, ASK), ("몰라.", "김밥 어때요?", "굶어."), (2, 1, 3), source="설문")
    demonstration = demonstration_of(ranking)
    assert demonstration == Demonstration((SYSTEM, ASK, Message("assistant", "김밥 어때요?")), source="설문")
    assert prompt_of(ranking) == Prompt((SYSTEM, ASK), "설문", "김밥 어때요?")
    assert prompt_of(demonstration) == Prompt((SYSTEM, ASK), "설문", "김밥 어때요?")
    long = Demonstration((ASK, ANSWER, AGAIN, Message("assistant", "국수는요?")))
    assert prompt_of(long) == Prompt((ASK, ANSWER, AGAIN), "", "국수는요?")
