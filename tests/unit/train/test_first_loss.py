"""The loss of equal scores by hand, and what a run says of its first loss."""

from __future__ import annotations

from math import exp, log, log1p

import numpy as np
import pytest

from rlhf.config.schema import RewardConfig
from rlhf.data.encode import EncodedRanking
from rlhf.train.first_loss import first_loss_line, loss_of_equal_scores

PAIR = EncodedRanking(
    np.asarray([4], np.int32),
    (np.asarray([6, 20], np.int32), np.asarray([5], np.int32)),
    (1, 2),
    scores=(3.0, 1.0),
)
UNSCORED = EncodedRanking(PAIR.prompt, PAIR.answers, (2, 1))


def test_equal_scores_cost_ln_2_whatever_the_smoothing():
    for smoothing in (0.0, 0.2):
        config = RewardConfig.model_validate({"train": {"lr": 0.01, "label_smoothing": smoothing, "centering": 0.1}})
        assert loss_of_equal_scores([PAIR, UNSCORED], config) == pytest.approx(log(2), rel=1e-6)


def test_with_margins_equal_scores_cost_more():
    """A margin of 0.5 * (3 - 1) on one pair: -log sigmoid(-1); none on the other: log 2."""
    config = RewardConfig.model_validate({"train": {"lr": 0.01, "margin": "scores", "margin_scale": 0.5}})
    assert loss_of_equal_scores([PAIR, UNSCORED], config) == pytest.approx((log1p(exp(1)) + log(2)) / 2, rel=1e-6)


def test_a_loud_start_is_a_warning():
    assert first_loss_line(0.7, log(2)) == "first loss 0.7000; equal scores have 0.6931: the new head starts quiet"
    assert first_loss_line(1.08, log(2)).startswith("warning: first loss 1.0800; equal scores have 0.6931")
    assert first_loss_line(float("nan"), log(2)).startswith("warning: ")
