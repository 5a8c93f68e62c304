"""What a model is asked for each row, and in which mode, seen by a module that records it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow, pack_sequences
from rlhf.engine.ranks import Ranks
from rlhf.engine.rows import RowModel
from rlhf.models.head import LogprobRequest, LossRequest


class Recorder(nn.Module):
    """Returns what it is asked for, and records its inputs and whether it trains and keeps a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: dict[str, Any] = {}
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, **inputs: Any) -> Any:
        self.inputs = inputs
        self.modes.append((self.training, torch.is_grad_enabled()))
        return inputs.get("request")


def row() -> PackedRow:
    """Five tokens, the last three of which are an answer: read at 1, 2 and 3."""
    return pack_sequences([EncodedSequence(np.arange(10, 15, dtype=np.int32), np.arange(5) > 1)])


def rows_of(recorder: Recorder) -> RowModel:
    return RowModel(recorder, Ranks(0, 0, 1, torch.device("cpu")), role="reward")


def test_a_row_and_the_options_reach_the_model() -> None:
    recorder = Recorder()
    rows_of(recorder).forward(row())
    assert recorder.inputs["input_ids"].tolist() == [[10, 11, 12, 13, 14]]
    assert recorder.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4]]
    assert recorder.inputs["positions"].tolist() == [1, 2, 3]
    assert recorder.inputs["role"] == "reward"
    assert recorder.modes == [(True, True)]


@pytest.mark.parametrize("with_entropy", [False, True])
def test_log_probabilities_are_asked_for_as_given(with_entropy: bool) -> None:
    request: Any = rows_of(Recorder()).logprobs(row(), 0.7, with_entropy=with_entropy)
    assert isinstance(request, LogprobRequest)
    assert (request.labels.tolist(), request.temperature, request.with_entropy) == ([12, 13, 14], 0.7, with_entropy)


def test_a_loss_is_divided_by_the_total_and_takes_noise() -> None:
    recorder, noise = Recorder(), torch.ones(1, 5, 2)
    request: Any = rows_of(recorder).loss(row(), 40.0, noise=noise)
    assert isinstance(request, LossRequest)
    assert (request.labels.tolist(), request.weights.tolist()) == ([12, 13, 14], [1.0, 1.0, 1.0])
    assert request.denominator.item() == 40.0
    assert torch.equal(recorder.inputs["noise"], noise)
    rows_of(recorder).loss(row(), 40.0)
    assert "noise" not in recorder.inputs


@pytest.mark.parametrize("training", [False, True])
def test_inference_is_in_eval_mode_without_a_graph_and_leaves_the_mode_as_it_was(training: bool) -> None:
    recorder = Recorder().train(training)
    rows = rows_of(recorder)
    rows.infer(row())
    logprobs: Any = rows.infer_logprobs(row(), 0.7)
    loss: Any = rows.infer_loss(row())
    assert recorder.modes == [(False, False)] * 3
    assert recorder.training is training
    assert (logprobs.temperature, logprobs.with_entropy) == (0.7, False)
    assert loss.denominator.item() == 1.0


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_comes_back_after_an_error(training: bool) -> None:
    recorder = Recorder().train(training)
    with pytest.raises(ZeroDivisionError), rows_of(recorder).evaluating():
        raise ZeroDivisionError
    assert recorder.training is training
