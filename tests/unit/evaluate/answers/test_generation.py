from __future__ import annotations

import pytest

from rlhf.errors import DataError
from rlhf.evaluate.answers.generation import GenerationMetrics, measure_generations


def test_measures_by_hand():
    answers = ["네 네 좋아요.", " 네 네 좋아요. ", "한심해. ok 그만", ""]
    metrics = measure_generations(answers, [True, True, False, False])
    assert metrics.polite == pytest.approx(2 / 5)  # 1 + 1 polite; 한심해. / ok 그만; the empty answer
    assert metrics.rude == pytest.approx(1 / 4)
    # Pairs of each of the first two: 네네, 네 좋아요, 좋아요. ; of the third: 한심해. , . ok, ok 그만
    assert metrics.distinct2 == pytest.approx(6 / 9)
    assert metrics.distinct_answers == pytest.approx(3 / 4)
    assert metrics.repeated == pytest.approx((1 / 3 + 1 / 3 + 0 + 0) / 4)
    assert metrics.eos == pytest.approx(2 / 4)
    assert metrics.length_chars == pytest.approx((8 + 8 + 10 + 0) / 4)
    assert metrics.hangul == pytest.approx(15 / 17)  # 5 + 5 + 한심해 그만 of those and o, k
    assert metrics.num_answers == 4


def test_empty_answers_are_not_polite():
    assert measure_generations(["감사합니다.", ""], [True, True]).polite == 0.5
    assert measure_generations(["", " "], [True, True]).polite == 0.0


def test_as_dict_rounds_to_four_digits():
    metrics = measure_generations(["네.", "응.", "그래."], [True, False, False])
    assert metrics.as_dict() == {
        "polite": 0.3333,
        "rude": 0.0,
        "distinct2": 1.0,
        "distinct_answers": 1.0,
        "repeated": 0.0,
        "eos": 0.3333,
        "length_chars": 2.3333,  # 2, 2 and 3 characters
        "hangul": 1.0,
        "num_answers": 3,
    }
    assert isinstance(metrics, GenerationMetrics)


def test_refuses_nothing_and_unequal_lengths():
    with pytest.raises(DataError, match="no answers"):
        measure_generations([], [])
    with pytest.raises(AssertionError):
        measure_generations(["네."], [])
