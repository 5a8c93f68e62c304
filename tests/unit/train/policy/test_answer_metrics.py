"""Metrics of answers by hand."""

from __future__ import annotations

import pytest

from rlhf.train.policy.answer_metrics import answer_metrics


def test_figures_of_three_answers() -> None:
    """Words and marks: 네 좋아요 ! | 네 좋아요 ! | No way. 5 distinct of 8; pairs 네-좋아요, 좋아요-!, No-way of 5."""
    found = answer_metrics(["네 좋아요!", " 네 좋아요! ", "No way"], [4, 4, 2], [1.0, 1.0, -1.0])
    assert found["text/distinct_1"] == pytest.approx(5 / 8)
    assert found["text/distinct_2"] == pytest.approx(3 / 5)
    assert found["text/hangul_share"] == pytest.approx(8 / 13)
    assert found["text/polite_share"] == pytest.approx(2 / 3)
    assert found["text/length_chars"] == pytest.approx(6)
    assert found["text/repeated_token_share"] == 0
    assert found["objective/reward_length_slope"] == pytest.approx(1.0)  # 2 reward units over 2 tokens
    assert found["objective/reward_length_correlation"] == pytest.approx(1.0)


def test_spam_repeats_and_silence_is_not_polite() -> None:
    found = answer_metrics(["감사합니다 감사합니다 감사합니다 감사합니다", ""], [8, 1], [1.0, 0.0])
    assert found["text/repeated_token_share"] == pytest.approx((3 / 4 + 0) / 2)
    assert found["text/polite_share"] == pytest.approx(1 / 2)


def test_politeness_is_counted_by_sentence() -> None:
    """Of two sentences in one answer the first is polite."""
    assert answer_metrics(["네, 좋아요. 나는 간다."], [6], [1.0])["text/polite_share"] == pytest.approx(1 / 2)
