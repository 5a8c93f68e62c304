"""A step of stage 2 and its inference by hand, on a model that scores an answer by a tenth of its last token."""

from __future__ import annotations

from math import exp, log1p
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf.config.schema import RewardConfig
from rlhf.data.encode import EncodedRanking
from rlhf.data.packing import PackedRow, trees_of
from rlhf.ops.losses import ranking_loss
from rlhf.train.ranking_rows import pack_rankings, score_table
from rlhf.train.reward import (
    MAX_DEMONSTRATIONS,
    _demonstrations,
    held_out_accuracy,
    reward_step,
    score_trees,
)
from tests.support.counted_steps import HALF, CountedSteps


class TenthsOfLastTokens(CountedSteps):
    def forward(self, row: PackedRow) -> Tensor:
        return row.input_ids[0, row.positions] / 10

    infer = forward


def ids(*values: int) -> np.ndarray:
    return np.asarray(values, np.int32)


# Scores 2 and 0.5 in the order of their ranks, which a judge scored 3 and 1; scores 1 and 3 against theirs.
RIGHT = EncodedRanking(ids(4), (ids(6, 20), ids(5)), (1, 2), scores=(3.0, 1.0))
WRONG = EncodedRanking(ids(4), (ids(10), ids(30)), (1, 2))


@pytest.mark.parametrize("micro_tokens", [4, 100])  # a ranking per row, or both in one
def test_a_step_by_hand(micro_tokens: int) -> None:
    """Margin 0.5 * (3 - 1) on the first pair: d = 2 - 0.5 - 1. The second has none: d = 1 - 3."""
    train = {"lr": 0.01, "margin": "scores", "margin_scale": 0.5, "label_smoothing": 0.1, "centering": 0.01}
    config = RewardConfig.model_validate({"train": train})
    config = config.model_copy(update={"train": config.train.model_copy(update={"micro_tokens": micro_tokens})})
    model: Any = TenthsOfLastTokens()
    metrics = reward_step(model, [RIGHT, WRONG], config, HALF, 1)
    first = 0.9 * log1p(exp(-0.5)) + 0.1 * log1p(exp(0.5)) + 0.01 * 2.5**2
    second = 0.9 * log1p(exp(2)) + 0.1 * log1p(exp(-2)) + 0.01 * 4**2
    assert model.learned == pytest.approx((first + second) / 2, rel=1e-6)
    assert metrics == pytest.approx(
        {
            "loss": (first + second) / 2,
            "reward_model/accuracy": 0.5,
            "reward_model/margin": (1.5 - 2.0) / 2,
            "lr": 0.005,
            "grad_norm": 7.0,
            "tokens": 7,
            "batch/num_rankings": 2,
        },
        rel=1e-6,
    )


def test_scores_come_back_by_tree_in_order() -> None:
    """The longer tree is read first; results keep the order of the trees."""
    model: Any = TenthsOfLastTokens()
    assert score_trees(model, trees_of([WRONG, RIGHT]), 4) == [pytest.approx([1, 3]), pytest.approx([2, 0.5])]


def test_held_out_accuracy_by_hand() -> None:
    model: Any = TenthsOfLastTokens()
    assert held_out_accuracy(model, [RIGHT, RIGHT, RIGHT, WRONG], RewardConfig())["accuracy"] == 0.75


def test_without_demonstrations_the_best_answers_set_the_zero_point() -> None:
    run: Any = SimpleNamespace(config=RewardConfig())
    second_best = EncodedRanking(ids(4), (ids(10), ids(30), ids(40)), (3, 1, 2))
    trees, reports = _demonstrations(run, None, [RIGHT, second_best])  # type: ignore[arg-type]
    assert [[answer.tolist() for answer in answers] for _, answers in trees] == [[[6, 20]], [[30]]]
    assert reports == []
    assert len(_demonstrations(run, None, [RIGHT] * 600)[0]) == MAX_DEMONSTRATIONS == 512  # type: ignore[arg-type]


def test_an_idle_row_has_a_graph_and_no_loss_whatever_its_score() -> None:
    flat = torch.tensor([float("nan")], requires_grad=True)
    row = pack_rankings([])
    out = ranking_loss(
        score_table(flat, row), row.carried["ranks"], row.carried["mask"], torch.tensor(2.0), centering=0.1
    )
    out.loss.backward()
    assert (out.loss.item(), int(out.num_pairs)) == (0.0, 0)
    assert flat.grad is not None
    assert flat.grad.tolist() == [0.0]
