"""The reward functions that come with the package."""

from __future__ import annotations

import unicodedata

import pytest

from rlhf.train.reward_functions import length_penalty, polite, polite_by_sentence, repetition_penalty


def test_length_costs_beyond_what_is_free() -> None:
    """5 characters free, then 1 for each 2: 4 and 5 cost nothing, 8 costs (8 - 5) / 2."""
    answers = ["가나다라", "가나다라마", "가나다라마바사아", "  가나다라마  "]
    found = length_penalty([""] * 4, answers, [True] * 4, free_characters=5, characters_per_unit=2.0)
    assert found == [0, 0, -1.5, 0]


def test_repetition_costs_the_share_of_repeated_words() -> None:
    """Of 네 네 네 좋아요 two words stand among the 8 before them."""
    assert repetition_penalty(["", ""], ["네 네 네 좋아요", "네 좋아요"], [True, True]) == [-0.5, 0]


def test_politeness_is_paid_and_rude_words_cost() -> None:
    """Two polite sentences of two; one of two; none, with one rude word."""
    answers = ["안녕하세요. 반갑습니다.", "안녕하세요. 반갑다.", "멍청하다."]
    assert polite([""] * 3, answers, [True] * 3) == [1.0, 0.5, -1.0]
    assert polite([""], answers[2:], [True], rude_cost=3.0) == pytest.approx([-3.0])


def test_polite_sentences_are_paid_where_they_end() -> None:
    """Three sentences, the second plain, the mark belonging to the third; no sentence in the second answer."""
    answer = "안녕하세요.  비가 온다.\n 우산을 챙기세요! ㅎㅎ "
    (found, nothing) = polite_by_sentence(["", ""], [answer, " "], [True, True])
    assert found == [(6, 1 / 3), (14, 0), (28, 1 / 3)]
    assert [answer[:offset][-2:] for offset, _ in found] == ["요.", "다.", "ㅎㅎ"]
    assert nothing == []


def test_an_answer_in_another_normal_form_is_paid_at_its_end() -> None:
    answer = unicodedata.normalize("NFD", "안녕하세요. 온다.")
    assert polite_by_sentence([""], [answer], [True]) == [0.5]
