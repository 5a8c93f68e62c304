"""Margins from a judge's scores, and the zero and unit of exported scores, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhf.data.encode import EncodedRanking
from rlhf.errors import ConfigError, DataError
from rlhf.ops.losses import ranking_loss
from rlhf.train.margins import demonstration_zero, margins_of, rows_without_scores


def ranking(scores: tuple[float, ...] | None, ranks: tuple[int, ...] = (1, 2)) -> EncodedRanking:
    ids = np.asarray([5], np.int32)
    return EncodedRanking(ids, (ids,) * len(ranks), ranks, scores=scores)


def test_margins_are_scaled_gaps_and_zero_without_scores() -> None:
    """Scores 27 and 11 at 0.1: 1.6 of margin. The last row's scores contradict its ranks: no margin for that pair."""
    margins = margins_of([ranking((27, 11)), ranking(None), ranking((1, 2, 0), (1, 2, 3))], 3, 0.1)
    assert margins.shape == (3, 3, 3)
    assert margins[0, 0, 1].item() == pytest.approx(1.6)
    assert not margins[0, :2, 2].any()  # the row has two answers alone
    assert not margins[1].any()
    assert margins[2, 0, 1].item() == 0
    assert margins[2, 0, 2].item() == pytest.approx(0.1)
    assert margins[2, 1, 2].item() == pytest.approx(0.2)


def test_an_idle_row_has_a_table_of_its_own() -> None:
    assert margins_of([], 1, 1.0).tolist() == [[[0.0]]]


def test_a_margin_reaches_the_loss_with_the_sign_that_asks_for_more() -> None:
    """Scores of the model 2 and 1, margin 1.6: -log sigmoid(1 - 1.6) = log(1 + e^0.6)."""
    loss = ranking_loss(
        torch.tensor([[2.0, 1.0]]),
        torch.tensor([[1, 2]]),
        torch.ones(1, 2, dtype=torch.bool),
        torch.tensor(1.0),
        margins=margins_of([ranking((27, 11))], 2, 0.1),
    )
    assert loss.loss.item() == pytest.approx(np.log1p(np.exp(0.6)), rel=1e-6)


def test_rows_without_scores_are_counted_and_refused_when_they_are_all() -> None:
    assert rows_without_scores([ranking((2, 1)), ranking(None), ranking(None)]) == 2
    with pytest.raises(ConfigError, match="none of 2 training rankings has scores") as caught:
        rows_without_scores([ranking(None), ranking(None)])
    assert "train.margin" in caught.value.where


def test_equal_scores_have_no_unit() -> None:
    with pytest.raises(DataError, match=r"2 score\(s\) have deviation 0.0") as caught:
        demonstration_zero([3.0, 3.0], "mean_and_deviation")
    assert "train.normalise" in caught.value.where
    assert demonstration_zero([3.0, 3.0], "mean").offset == -3.0
    assert demonstration_zero([2.0, 6.0], "mean_and_deviation") == (0.5, -2.0, 4.0, 2.0)
