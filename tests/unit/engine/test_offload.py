"""Where an offloaded model's weights are, seen in the moves it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlhf.config.sections import DeepSpeedSection
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import pack_sequences
from rlhf.engine.deepspeed import InferenceModel
from rlhf.engine.ranks import Ranks

DEVICE = torch.device("meta")  # any device that is not the CPU


class Recorder(nn.Module):
    """A model that notes where it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.moves: list[str] = []

    def to(self, device: Any) -> Recorder:  # type: ignore[override]
        self.moves.append(str(device))
        return self

    def forward(self, input_ids: Tensor, **others: Any) -> Tensor:
        assert input_ids.device == DEVICE
        return input_ids


@pytest.mark.parametrize(
    ("offload", "expected"),
    [(True, ["meta", "meta", "cpu", "meta"]), (False, ["meta"])],  # without: sent there once, and left there
)
def test_weights_come_for_use_and_leave_when_parked(offload: bool, expected: list[str]) -> None:
    recorder: Any = Recorder()
    model = InferenceModel(recorder, DeepSpeedSection(), Ranks(0, 0, 1, DEVICE), dtype="float32", offload=offload)
    assert recorder.moves == ([] if offload else expected)
    row = pack_sequences([EncodedSequence(np.arange(4, dtype=np.int32), np.arange(4) > 1)])
    model.infer(row)
    model.infer(row)
    model.park()
    model.infer(row)
    assert recorder.moves == expected


@pytest.mark.parametrize("offload", [False, True])
def test_a_partitioned_model_is_left_to_deepspeed(offload: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At ZeRO 3 the partitions are in CPU memory by its configuration, and the module itself is never moved."""
    recorder: Any = Recorder()
    given: dict[str, Any] = {}

    def initialize(*, model: nn.Module, config: dict[str, Any]) -> tuple[nn.Module, None]:
        given.update(config["zero_optimization"])
        return model, None

    monkeypatch.setattr("deepspeed.initialize", initialize)
    section = DeepSpeedSection(zero_stage=3, offload_optimizer=True)
    model = InferenceModel(recorder, section, Ranks(0, 0, 1, DEVICE), dtype="float32", offload=offload)
    model.infer(pack_sequences([EncodedSequence(np.arange(4, dtype=np.int32), np.arange(4) > 1)]))
    model.park()
    assert recorder.moves == []
    assert ("offload_param" in given) is offload
    assert "offload_optimizer" not in given  # nothing is trained


def test_a_frozen_model_is_in_eval_mode_and_has_no_gradients() -> None:
    module: Any = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    InferenceModel(module, DeepSpeedSection(), Ranks(0, 0, 1, torch.device("cpu")), dtype="float32")
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(each.training for each in module.modules())
