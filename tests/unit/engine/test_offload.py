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
