"""Saved engines read back whole, from files laid out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rlhf.engine.whole_state import WholeState
from rlhf.errors import CheckpointError
from tests.support.saved_engines import save_zero3, write_layout

WEIGHTS = {"up.weight": torch.arange(6.0).reshape(3, 2), "up.bias": torch.tensor([10.0, 11.0, 12.0])}


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(2, 3)
        self.kept = nn.Linear(2, 2)
        self.kept.requires_grad_(False)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_parts_of_each_parameter_are_put_together(ranks, tmp_path):
    state = WholeState(save_zero3(tmp_path / "model", WEIGHTS, ranks=ranks))
    for name, weight in WEIGHTS.items():
        assert torch.equal(state.parameter(name), weight)
        assert torch.equal(state.parameter(name, "exp_avg"), weight + 1)
        assert torch.equal(state.parameter(name, "exp_avg_sq"), weight + 2)
        assert state.step(name) == 7
    assert state.part("up.weight", "weight", 2, 3).tolist() == [2.0, 3.0, 4.0]
    assert state.counters == {"global_steps": 7, "global_samples": 14, "skipped_steps": 1}


def flat_parts(folder: Path) -> Path:
    """ZeRO 2 on two ranks: the bias first, then the weight, nine elements in parts of five."""
    (folder / "engine").mkdir(parents=True)
    slots = [{"name": "up.bias", "shape": [3], "start": 0}, {"name": "up.weight", "shape": [3, 2], "start": 3}]
    write_layout(folder, zero_stage=2, world_size=2, flats=[{"size": 5, "slots": slots}])
    for rank, values in enumerate(([10.0, 11, 12, 0, 1], [2.0, 3, 4, 5])):  # weights lose their padding, moments do not
        moments = torch.tensor([*values, 99.0][:5])
        state = {0: {"step": torch.tensor(3.0), "exp_avg": -moments, "exp_avg_sq": moments * 10}}
        inner = {"single_partition_of_fp32_groups": [torch.tensor(values)], "base_optimizer_state": {"state": state}}
        file = folder / "engine" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        torch.save({"optimizer_state_dict": inner}, file)
    return folder


def test_parts_of_a_flat_tensor_are_put_together(tmp_path):
    state = WholeState(flat_parts(tmp_path / "model"))
    for name, weight in WEIGHTS.items():
        assert torch.equal(state.parameter(name), weight)
        assert torch.equal(state.parameter(name, "exp_avg"), -weight)
        assert torch.equal(state.parameter(name, "exp_avg_sq"), weight * 10)
        assert state.step(name) == 3


def test_a_parameter_that_never_moved_has_no_moments(tmp_path):
    folder = tmp_path / "model"
    (folder / "engine").mkdir(parents=True)
    flats = [
        {"size": w.numel(), "slots": [{"name": n, "shape": list(w.shape), "start": 0}]} for n, w in WEIGHTS.items()
    ]
    write_layout(folder, zero_stage=0, world_size=2, flats=flats)
    moved = {"step": torch.tensor(5.0), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    saved = {"module": WEIGHTS, "optimizer": {"state": {1: moved}}}
    torch.save(saved, folder / "engine" / "mp_rank_00_model_states.pt")
    state = WholeState(folder)
    assert (state.step("up.weight"), state.step("up.bias")) == (0, 5)
    assert not state.parameter("up.weight", "exp_avg").any()
    assert torch.equal(state.parameter("up.weight"), WEIGHTS["up.weight"])


@pytest.mark.parametrize("averaged", [False, True])
def test_a_module_is_filled(averaged, tmp_path):
    """Averages stand in where they were kept; frozen parameters stay."""
    average = {"up.bias": torch.tensor([0.5, 0.25, 0.125])} if averaged else None
    state, module = WholeState(save_zero3(tmp_path / "model", WEIGHTS, average=average)), Module()
    frozen = module.kept.weight.clone()
    state.fill(module)
    assert torch.equal(module.up.weight, WEIGHTS["up.weight"])
    assert torch.equal(module.up.bias, average["up.bias"] if average else WEIGHTS["up.bias"])
    assert torch.equal(module.kept.weight, frozen)


def test_other_parameters_are_refused_by_name(tmp_path):
    folder = save_zero3(tmp_path / "model", {**WEIGHTS, "up.bias": torch.zeros(4), "down.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"other trained parameters \(2 differ\)") as refused:
        WholeState(folder).fill(Module())
    assert "down.weight: saved (1,), here absent" in str(refused.value)
    assert "up.bias: saved (4,), here (3,)" in str(refused.value)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"shared/layout\.json is missing"):
        WholeState(tmp_path / "shared")
    folder = save_zero3(tmp_path / "model", WEIGHTS)
    second = folder / "engine" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    second.write_bytes(second.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cannot read .*zero_pp_rank_1_mp_rank_00_optim_states\.pt"):
        WholeState(folder).parameter("up.bias")
    second.unlink()
    with pytest.raises(CheckpointError, match="zero_pp_rank_1"):
        WholeState(folder).parameter("up.bias")
