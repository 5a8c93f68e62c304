"""A step of stage 1 and its held-out loss by hand, on a model whose tokens cost a tenth of their id in nats."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf.config.schema import SftConfig
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow
from rlhf.errors import NonFiniteError
from rlhf.ops.losses import CrossEntropy
from rlhf.ops.neftune import embedding_noise
from rlhf.train.sft import evaluate_sft, sft_step
from tests.support.counted_steps import HALF, CountedSteps


class TenthsOfIds(CountedSteps):
    def __init__(self) -> None:
        super().__init__()
        self.noises: list[Tensor | None] = []
        self.model = SimpleNamespace(
            model=SimpleNamespace(get_input_embeddings=lambda: SimpleNamespace(embedding_dim=4))
        )

    def loss(self, row: PackedRow, total: float, noise: Tensor | None = None) -> CrossEntropy:
        self.noises.append(noise)
        return CrossEntropy((self.infer_loss(row).nll * row.weights).sum() / total, self.infer_loss(row).nll)

    def infer_loss(self, row: PackedRow) -> CrossEntropy:
        nll = row.labels / 10
        return CrossEntropy((nll * row.weights).sum(), nll)


def sequence(ids: list[int], answer: list[int], source: str = "") -> EncodedSequence:
    return EncodedSequence(np.asarray(ids, np.int32), np.asarray(answer, bool), source)


# Labels 5 and 3 of the first (an answer's first token is no label); 2 and 6 of the second, of which 2 is the prompt's.
BATCH = [sequence([9, 5, 3], [1, 1, 1], "chat"), sequence([9, 2, 6], [0, 0, 1], "qa")]


def config(**train: Any) -> SftConfig:
    """Rows of one sequence each; so few tokens are no valid setting of a whole run."""
    found = SftConfig.model_validate({"run": {"seed": 3}, "train": {"lr": 0.01, **train}})
    return found.model_copy(update={"train": found.train.model_copy(update={"micro_tokens": 3})})


def test_a_step_divides_by_the_weight_of_the_whole_batch() -> None:
    """Two rows; costs 0.5 + 0.3 and 0.25 * 0.2 + 0.6, weights 2 and 1.25."""
    model: Any = TenthsOfIds()
    metrics = sft_step(model, BATCH, config(prompt_loss_weight=0.25), HALF, 1)
    assert model.learned == pytest.approx(1.45 / 3.25)
    assert metrics == pytest.approx(
        {
            "loss": 1.45 / 3.25,
            "loss_by_source/chat": 0.8 / 2,
            "loss_by_source/qa": 0.65 / 1.25,
            "lr": 0.005,
            "grad_norm": 7.0,
            "tokens": 6,
            "batch/answer_tokens": 3,
        }
    )
    assert model.rates == pytest.approx([0.005])
    assert model.noises == [None, None]


def test_noise_belongs_to_the_place_in_the_global_batch() -> None:
    model: Any = TenthsOfIds()
    sft_step(model, BATCH, config(neftune_alpha=5.0), HALF, 2)
    for place, noise in enumerate(model.noises):
        torch.testing.assert_close(noise, embedding_noise([3], [place], 4, alpha=5.0, seed=3, step=2))
    assert not torch.equal(*model.noises)


@pytest.mark.parametrize("worth", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(worth: float) -> None:
    model: Any = TenthsOfIds()
    model.infer_loss = lambda row: CrossEntropy(torch.tensor(worth), torch.full(row.labels.shape, worth))
    with pytest.raises(NonFiniteError, match="the weights were not updated"):
        sft_step(model, BATCH, config(), HALF, 1)
    assert model.rates == []


def test_the_held_out_loss_is_a_mean_over_answer_tokens_whatever_weighs_in_training() -> None:
    """0.5, 0.3 and 0.6; by source 0.4 and 0.6. The prompt, which weighs in training, does not count."""
    model: Any = TenthsOfIds()
    found = evaluate_sft(model, BATCH, config(prompt_loss_weight=0.25))
    by_source = {"eval/loss_by_source/chat": 0.4, "eval/loss_by_source/qa": 0.6}
    assert found == pytest.approx({"eval/loss": 1.4 / 3, **by_source})
