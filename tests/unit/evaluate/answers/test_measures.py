"""Measures of texts by hand, and the difference of two models."""

from __future__ import annotations

import pytest

from rlhf.artifacts.run_folder import short_names
from rlhf.errors import DataError
from rlhf.evaluate.answers.measures import MEASURES, differences, is_mixed, measure, unique_share

POLITE, PLAIN, MIXED = "정말 좋네요. 같이 가요!", "그냥 혼자 가.", "정말 좋네요. 그냥 혼자 가."


def test_register_is_mixed_within_an_answer_only() -> None:
    assert [is_mixed(text) for text in (POLITE, PLAIN, MIXED, "준비물: 우산\n꼭 챙기세요.")] == [
        False,
        False,
        True,
        False,
    ]


def test_measures_by_hand() -> None:
    """Sentences 2 polite of 2, 0 of 1, 1 of 2 and silence 0 of 1: 3 of 6."""
    found = measure([[POLITE], [PLAIN], [MIXED], [""]], [[True], [False], [True], [True]]).figures()
    assert list(found) == list(MEASURES)
    assert found["polite"]["mean"] == pytest.approx(3 / 6)
    assert found["mixed"]["mean"] == pytest.approx(1 / 4)
    assert found["empty"]["mean"] == pytest.approx(1 / 4)
    assert found["eos"]["mean"] == pytest.approx(3 / 4)
    assert found["length_chars"]["mean"] == pytest.approx((len(POLITE) + len(PLAIN) + len(MIXED)) / 4)
    assert found["rude"]["mean"] == 0


def test_means_by_hand() -> None:
    answers = ["네 네 좋아요.", " 네 네 좋아요. ", "한심해. ok 그만", ""]
    found = measure([[answer] for answer in answers], [[True], [True], [False], [False]]).means()
    assert list(found) == list(MEASURES)
    assert found["polite"] == pytest.approx(2 / 5)  # 1 + 1 polite; 한심해. / ok 그만; the empty answer
    assert found["rude"] == pytest.approx(1 / 4)
    # Pairs of each of the first two: 네네, 네 좋아요, 좋아요. ; of the third: 한심해. , . ok, ok 그만
    assert found["distinct2"] == pytest.approx(6 / 9)
    assert found["distinct_answers"] == pytest.approx(3 / 4)
    assert found["repeated"] == pytest.approx((1 / 3 + 1 / 3 + 0 + 0) / 4)
    assert found["eos"] == pytest.approx(2 / 4)
    assert found["length_chars"] == pytest.approx((8 + 8 + 10 + 0) / 4)
    assert found["hangul"] == pytest.approx(15 / 17)  # 5 + 5 + 한심해 그만 of those and o, k
    assert measure([answers], [[True, True, False, False]]).means() == found  # four answers to one prompt


def test_means_are_the_means_of_the_figures() -> None:
    found = measure([[POLITE, PLAIN], ["ok 네 네"]], [[True, False], [True]])
    assert found.means() == pytest.approx({name: each["mean"] for name, each in found.figures().items()})


def test_only_the_measures_that_are_named() -> None:
    assert list(measure([[POLITE]], [[True]], {"distinct1", "polite"}).means()) == ["polite", "distinct1"]


def test_silence_is_not_polite_and_holds_nothing() -> None:
    assert measure([["감사합니다."], [""]], [[True], [True]]).means()["polite"] == 0.5
    silent = measure([["", " "]], [[True, True]]).means()
    assert (silent["polite"], silent["hangul"], silent["distinct1"], silent["empty"]) == (0, 0, 0, 1)


def test_no_answers_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="no answers"):
        measure([], [])
    with pytest.raises(ValueError, match="shorter"):
        measure([["네."]], [])
    with pytest.raises(ValueError, match="shorter"):
        measure([["네.", "응."]], [[True]])


@pytest.mark.parametrize(
    ("texts", "n", "share"),
    [
        (["가 나 가 나"], 1, 0.5),  # 2 of 4
        (["가 나 가 나"], 2, 2 / 3),  # 가나 나가 가나
        (["가 나", "나 가"], 2, 1.0),  # 가나, 나가; none across the two texts
        (["좋아요!!"], 1, 2 / 3),  # 좋아요 ! !
        (["가", ""], 2, 0.0),
    ],
)
def test_distinct_n(texts: list[str], n: int, share: float) -> None:
    found = measure([[text] for text in texts], [[True]] * len(texts), {f"distinct{n}"}).means()
    assert found == pytest.approx({f"distinct{n}": share})


def test_variety_and_what_it_is_without_each_prompt() -> None:
    """a a b | a c: 3 unique of 5; without the first 2 of 2, without the second 2 of 3."""
    found = unique_share([["a", "a", "b"], ["a", "c"]])
    assert found.share == pytest.approx(3 / 5)
    assert found.without.tolist() == pytest.approx([1.0, 2 / 3])
    assert unique_share([[], []]).share == 0


def test_the_difference_of_two_models() -> None:
    flags = [[True]] * 12
    polite, plain = measure([[POLITE]] * 12, flags), measure([[PLAIN]] * 12, flags)
    gap = differences(plain, polite)
    # all twelve prompts agree: Wilson's end for 0 of 12 is 3.8415 / 15.8415, and a prompt may lose 1 - (-1)
    assert gap["polite"] == {"mean": 1.0, "low": pytest.approx(1 - 2 * 3.84146 / 15.84146, abs=1e-5), "high": 1.0}
    assert gap["length_chars"]["mean"] == len(POLITE) - len(PLAIN)
    assert all(each["mean"] == 0 for each in differences(polite, polite).values())


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names(["/runs/a/sft/model", "/runs/a/ppo/model"]) == ["sft", "ppo"]
    assert short_names(["runs/a/ppo", "runs/b/ppo/model"]) == ["a/ppo", "b/ppo"]
    assert short_names(["org/name"]) == ["name"]
