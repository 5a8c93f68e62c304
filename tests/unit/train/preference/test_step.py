"""A step of preference optimisation by hand, on a model whose log-probability of a token is minus a tenth of its id."""

from __future__ import annotations

from math import exp, log1p
from typing import Any

import numpy as np
import pytest
import torch

from rlhf.config.schema import DpoConfig
from rlhf.data.encode import EncodedMarked, EncodedRanking
from rlhf.data.packing import PackedRow
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.train.preference.evaluation import evaluate_preferences
from rlhf.train.preference.rows import ReferencedRow
from rlhf.train.preference.step import preference_step
from tests.support.counted_steps import HALF, CountedSteps


class TenthsOfTokens(CountedSteps):
    """Counts what it is asked for; nothing learns."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs:
        assert temperature == 1.0
        self.rows += 1
        return TokenLogprobs(-row.labels / 10, torch.zeros(len(row.labels)))

    infer_logprobs = logprobs


def ids(*values: int) -> np.ndarray:
    return np.asarray(values, np.int32)


def config(micro_tokens: int = 100, **dpo: Any) -> DpoConfig:
    made = DpoConfig.model_validate({"train": {"lr": 0.01}, "dpo": {"beta": 0.5, **dpo}})
    return made.model_copy(update={"train": made.train.model_copy(update={"micro_tokens": micro_tokens})})


def sigmoid(value: float) -> float:
    return 1 / (1 + exp(-value))


# Log-probabilities -2.6 and -0.5 against -3.6 and -1.5: both log ratios are 1. Then -1 and -3 against -2 and -2.
EVEN = ReferencedRow(EncodedRanking(ids(4), (ids(6, 20), ids(5)), (1, 2)), (-3.6, -1.5))
RIGHT = ReferencedRow(EncodedRanking(ids(4), (ids(10), ids(30)), (1, 2)), (-2.0, -2.0))


@pytest.mark.parametrize("micro_tokens", [4, 100])  # a prompt per row, or both in one
def test_a_step_by_hand(micro_tokens: int) -> None:
    """d = 0.5 * (1 - 1) and 0.5 * (1 + 1), labels wrong in 10 %; three tokens of best answers of 3.6 nats in all."""
    model: Any = TenthsOfTokens()
    given = config(micro_tokens, label_smoothing=0.1, sft_weight=0.25)
    metrics = preference_step(model, [EVEN, RIGHT], given, HALF, 1)
    pairs = (log1p(exp(0)), 0.9 * log1p(exp(-1)) + 0.1 * log1p(exp(1)))
    loss = sum(pairs) / 2 + 0.25 * 3.6 / 3
    assert model.learned == pytest.approx(loss, rel=1e-6)
    assert metrics == pytest.approx(
        {
            "loss": loss,
            "preference/accuracy": 0.75,
            "preference/chosen_reward": 0.5 * (1 + 1) / 2,
            "preference/rejected_reward": 0.5 * (1 - 1) / 2,
            "preference/margin": 0.5,
            "preference/best_nll": 1.2,
            "lr": 0.005,
            "grad_norm": 7.0,
            "tokens": 7,
            "batch/num_rankings": 2,
        },
        rel=1e-5,
        abs=1e-6,
    )


def test_without_a_reference_the_mean_of_a_token_counts() -> None:
    """simpo at beta 0.5: -1.3 * 0.5 against -0.5 * 0.5, and a margin of 1."""
    model: Any = TenthsOfTokens()
    metrics = preference_step(model, [EVEN], config(loss="simpo"), HALF, 1)
    assert metrics["loss"] == pytest.approx(log1p(exp(0.4 + 1)), rel=1e-6)  # d = -0.65 + 0.25 - 1
    assert metrics["preference/margin"] == pytest.approx(-0.4, rel=1e-5)


def verdicts(good: list[bool], *, other: float) -> ReferencedRow:
    """Answers whose log ratios are 1 and 3, and an answer of another prompt: -0.7 against -0.7 - `other`."""
    answers, references = (ids(10), ids(30))[: len(good)], (-2.0, -6.0)[: len(good)]
    return ReferencedRow(EncodedMarked(ids(4), answers, tuple(good)), references, (ids(4), [ids(7)]), -0.7 - other)


def test_a_step_of_kto_by_hand() -> None:
    """Reference point (4 + 0) / 2 = 2 nats: rewards 0.5 and 1.5 lie 0.5 below and above 0.5 * 2."""
    model: Any = TenthsOfTokens()
    batch = [verdicts([True, False], other=4.0), verdicts([False], other=0.0)]
    given = config(loss="kto", good_weight=2.0, bad_weight=0.5)
    metrics = preference_step(model, batch, given, HALF, 1)
    costs = (2.0 * sigmoid(0.5), 0.5 * sigmoid(0.5), 0.5 * sigmoid(-0.5))
    assert metrics["loss"] == pytest.approx(sum(costs) / 3, rel=1e-6)
    assert metrics["preference/reference_point"] == pytest.approx(2.0, rel=1e-6)
    assert metrics["preference/accuracy"] == pytest.approx(1 / 3)  # only the last, a bad one below the point
    assert metrics["preference/chosen_reward"] == pytest.approx(0.5, rel=1e-6)
    assert metrics["preference/rejected_reward"] == pytest.approx((1.5 + 0.5) / 2, rel=1e-6)


CHOSEN, REJECTED = "preference/chosen_reward", "preference/rejected_reward"


@pytest.mark.parametrize(("good", "side", "other"), [(True, CHOSEN, REJECTED), (False, REJECTED, CHOSEN)])
def test_a_batch_of_one_kind_has_a_loss_and_one_side(good: bool, side: str, other: str) -> None:
    model: Any = TenthsOfTokens()
    metrics = preference_step(model, [verdicts([good], other=-4.0)], config(loss="kto"), HALF, 1)
    assert metrics["preference/reference_point"] == 0.0  # a negative estimate
    assert metrics["loss"] == pytest.approx(1 - sigmoid(0.5 if good else -0.5), rel=1e-6)
    assert metrics[side] == pytest.approx(0.5, rel=1e-6)
    assert {other, "preference/margin"} & metrics.keys() == set()
    assert ("preference/best_nll" in metrics) is good


def test_held_out_rows_by_hand() -> None:
    model: Any = TenthsOfTokens()
    metrics = evaluate_preferences(model, [EVEN, RIGHT], config(4, sft_weight=3.0))
    loss = (log1p(exp(0)) + log1p(exp(-1))) / 2
    expected = {"eval/preference_loss": loss, "eval/accuracy": 0.75, "eval/margin": 0.5}
    assert metrics == pytest.approx(expected, rel=1e-5)
    judged = evaluate_preferences(model, [verdicts([True, False], other=4.0)], config(loss="kto"))
    assert judged["eval/preference_loss"] == pytest.approx((sigmoid(1.5) + sigmoid(-0.5)) / 2, rel=1e-6)  # at 4 nats
    one_kind = evaluate_preferences(model, [verdicts([True], other=0.0)], config(loss="kto"))
    assert "eval/margin" not in one_kind
