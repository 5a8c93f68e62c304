"""Shortcut baselines, and the verdict both ways."""

from __future__ import annotations

import pytest

from rlhf.data.records import Message, Ranking
from rlhf.evaluate.reward.accuracy import ScoredRanking
from rlhf.evaluate.reward.shortcuts import ngram_scores, paired_difference, sampled, shortcut_section, verdict_of

THINGS = ("비", "눈", "밥", "차", "책", "옷", "꽃", "약")


def ranking(better: str, worse: str, *, swap: bool = False) -> Ranking:
    prompt = (Message("user", "어때요?"),)
    return Ranking(prompt, (worse, better), (2, 1)) if swap else Ranking(prompt, (better, worse), (1, 2))


def polite_or_rude() -> list[Ranking]:
    return [ranking(f"{thing} 좋아요!", f"{thing} 싫어.", swap=i % 2 == 0) for i, thing in enumerate(THINGS)]


STYLES = [ranking(f"{thing} 좋아요!", f"{thing} 싫어.") for thing in THINGS]


def judged(*differences: float) -> list[ScoredRanking]:
    return [ScoredRanking((1, 2), (difference, 0.0)) for difference in differences]


def test_ngrams_learn_a_style_and_know_no_order():
    test = [ranking("구름 좋아요!", "구름 싫어."), ranking("구름 좋아요!", "구름 싫어.", swap=True)]
    first, second = ngram_scores(polite_or_rude(), test)
    assert first[0] > first[1]
    assert second == pytest.approx(first[::-1])


def test_ngrams_without_a_difference_score_the_same():
    (scores,) = ngram_scores(polite_or_rude(), [ranking("똑같아", "똑같아")])
    assert scores[0] == scores[1]


def test_ngrams_of_one_pair():
    one = [ranking("좋아요", "싫어")]
    (scores,) = ngram_scores(one, one)
    assert scores[0] > scores[1]


def test_sampled_keeps_order_and_count():
    assert sampled(range(3), 3) == [0, 1, 2]
    few = sampled(range(100), 10)
    assert len(few) == 10
    assert few == sorted(set(few))
    assert few != list(range(10))


def test_paired_difference_is_on_the_same_pairs():
    # model right on 3 of 4, baseline on 1 of 4
    found = paired_difference(judged(1, 1, 1, -1), judged(1, -1, -1, -1))
    assert found["difference"] == pytest.approx(0.5)
    # equal on both of two pairs: Wilson's end for 0 of 2 is 3.8415 / 5.8415
    same = paired_difference(judged(1, -1), judged(1, -1))
    assert (same["difference"], -same["low"], same["high"]) == pytest.approx((0, 0.65762, 0.65762), abs=1e-5)


def test_a_model_right_everywhere_beats_shortcuts_right_nowhere():
    rows = judged(*[1.0] * 8)
    training = [ranking("나쁨", "좋음")] * 4
    test = [ranking("좋음", "나쁨나쁨")] * 8
    found = shortcut_section(rows, [[1, 2]] * 8, test, training)
    assert {name: each["accuracy"] for name, each in found["baselines"].items()} == {
        "longer_answer": 0.0,
        "character_ngrams": 0.0,
    }
    # Wilson's end for 0 of 8 is 3.8415 / 11.8415; each pair that differs may lose all of 1 - (-1)
    low = 1 - 2 * 3.8415 / 11.8415
    assert found["model_minus_best"] == {"difference": 1.0, "low": pytest.approx(low, abs=1e-4), "high": 1.0}
    assert found["beats_shortcuts"] is True
    assert found["verdict"].startswith("The model beats its shortcuts")


def test_a_model_that_is_the_shortcut_does_not_beat_it():
    found = shortcut_section(judged(1, -1, 1), [[2, 1], [1, 2], [2, 1]], STYLES[:3], polite_or_rude())
    assert found["beats_shortcuts"] is False
    assert found["best_baseline"] == "character_ngrams"


def test_without_training_data_nothing_is_claimed():
    found = shortcut_section(judged(*[1.0] * 4), [[1, 2]] * 4, STYLES[:4], [])
    assert list(found["baselines"]) == ["longer_answer"]
    assert "character_ngrams" in found["notes"]
    assert found["beats_shortcuts"] is False
    assert "could not be trained" in found["verdict"]


@pytest.mark.parametrize(
    ("difference", "low", "high", "beats", "words"),
    [
        (0.2, 0.1, 0.3, True, "beats its shortcuts: +0.200 [+0.100, +0.300] against character n-grams"),
        (0.2, 0.0, 0.4, False, "Too few pairs to tell"),
        (0.2, -0.1, 0.4, False, "Too few pairs to tell"),
        (0.0, -0.1, 0.1, False, "does not beat"),
        (-0.05, -0.2, 0.1, False, "does not beat"),
        (-0.2, -0.3, -0.1, False, "worse than a shortcut"),
    ],
)
def test_the_verdict_says_it_plainly(difference, low, high, beats, words):
    figures = {"difference": difference, "low": low, "high": high}
    found, sentence = verdict_of(figures, "character_ngrams", has_ngrams=True)
    assert found is beats
    assert words in sentence
