"""Where an offloaded model's weights are, seen in the moves it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlhf.config.sections import DeepSpeedSection
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow, pack_sequences
from rlhf.engine.deepspeed import InferenceModel
from rlhf.engine.parking import ParkingModel
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


class Tied(nn.Module):
    """A linear map of embeddings by their own weights, with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(3, 5, bias=False)
        self.embedding = nn.Embedding(5, 3)
        self.embedding.weight = self.model.weight
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.register_buffer("absent", None)

    def forward(self, input_ids: Tensor, **others: Any) -> Tensor:
        return self.model(self.embedding(input_ids)) * self.scale

    def devices(self) -> set[str]:
        return {each.device.type for each in (*self.parameters(), *self.buffers())}


def row() -> PackedRow:
    return pack_sequences([EncodedSequence(np.arange(4, dtype=np.int32), np.arange(4) > 1)])


@pytest.mark.parametrize(("offload", "parked"), [(True, "cpu"), (False, "meta")])
def test_weights_come_for_use_and_leave_when_parked(offload: bool, parked: str) -> None:
    """A meta tensor has no values: those that are there after parking never left."""
    tied: Any = Tied()
    values, place = tied.model.weight.detach().clone(), tied.model.weight.data_ptr()
    model = InferenceModel(tied, DeepSpeedSection(), Ranks(0, 0, 1, DEVICE), dtype="float32", offload=offload)
    assert tied.devices() == {parked}
    for _ in range(2):
        model.infer(row())
        model.infer(row())
        assert tied.devices() == {"meta"}
        assert not offload or tied.embedding.weight is tied.model.weight
        model.park()
        assert tied.devices() == {parked}
    if offload:
        assert tied.model.weight.data_ptr() == place
        assert torch.equal(tied.model.weight, values)
        assert tied.embedding.weight is tied.model.weight
    assert not tied.model.weight.requires_grad


def test_a_parked_model_computes_what_it_did() -> None:
    tied: Any = Tied()
    expected = tied(torch.arange(4)[None])
    cpu = Ranks(0, 0, 1, torch.device("cpu"))
    model = InferenceModel(tied, DeepSpeedSection(), cpu, dtype="float32", offload=True)
    for _ in range(2):
        assert torch.equal(model.infer(row()), expected)
        model.park()


def test_page_locked_copies_replace_the_weights_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a copy is made, the weights before it have left their first place: there are never two whole models."""
    module: Any = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    module.register_buffer("scale", torch.tensor(2.0))
    tensors = [*module.parameters(), module.scale]
    first, left = [each.data_ptr() for each in tensors], []

    def pin(tensor: Tensor, _: torch.device) -> Tensor:
        left.append(sum(each.data_ptr() != place for each, place in zip(tensors, first, strict=True)))
        return tensor.clone()

    monkeypatch.setattr("rlhf.engine.parking.page_locked", pin)
    ParkingModel(module, torch.device("cuda"))
    assert left == [0, 1, 2, 3, 4]


def test_weights_that_move_only_with_their_module_do_so() -> None:
    recorder: Any = Recorder()
    recorder.packed = nn.Parameter(torch.zeros(2), requires_grad=False)
    recorder.packed.quant_state = object()
    model = InferenceModel(recorder, DeepSpeedSection(), Ranks(0, 0, 1, DEVICE), dtype="float32", offload=True)
    assert recorder.moves == []
    model.infer(row())
    model.infer(row())
    model.park()
    model.park()
    model.infer(row())
    assert recorder.moves == ["meta", "cpu", "meta"]


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
    model.infer(row())
    model.park()
    assert recorder.moves == []
    assert ("offload_param" in given) is offload
    assert "offload_optimizer" not in given  # nothing is trained


def test_a_frozen_model_is_in_eval_mode_and_has_no_gradients() -> None:
    module: Any = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    InferenceModel(module, DeepSpeedSection(), Ranks(0, 0, 1, torch.device("cpu")), dtype="float32")
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(each.training for each in module.modules())
