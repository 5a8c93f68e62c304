"""Every optimizer learns, keeps the state it promises, and goes on from a checkpoint bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.distributed.conftest import WORKERS, Outcome, read_outcome
from tests.distributed.workers.optimizers import ENGINES, name_of
from tests.support.launcher import run_alone


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Outcome:
    out = tmp_path_factory.mktemp("optimizers")
    run_alone(WORKERS / "optimizers.py", inputs, out)
    return read_outcome(out)


@pytest.mark.parametrize("engine", [name_of(*each) for each in ENGINES])
def test_a_resumed_step_is_that_of_the_whole_run(steps: Outcome, engine: str) -> None:
    start, whole, resumed = (steps.weights[f"{engine} {name}"] for name in ("start", "whole", "resumed"))
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    assert any(not torch.equal(start[name], weight) for name, weight in whole.items())


def test_each_optimizer_moves_the_weights_its_own_way(steps: Outcome) -> None:
    moved = {
        name: steps.weights[f"{name} ZeRO 0 float32 whole"]["gpt_neox.embed_in.weight"]
        for name in ("adamw", "adamw8bit", "adafactor")
    }
    start = steps.weights["adamw ZeRO 0 float32 start"]["gpt_neox.embed_in.weight"]
    travelled = (moved["adamw"] - start).norm()
    assert 0 < (moved["adamw8bit"] - moved["adamw"]).norm() < 0.2 * travelled  # the same up to what 8 bits keep
    assert (moved["adafactor"] - moved["adamw"]).norm() > 0.2 * travelled


@pytest.mark.parametrize("engine", [name_of(*each) for each in ENGINES if each[0] == "adamw8bit"])
def test_eight_bit_moments_take_a_byte(steps: Outcome, engine: str) -> None:
    state = steps.numbers[f"{engine} state"]
    size = state["parameter"][1]
    assert state["state1"] == state["state2"] == ["torch.uint8", size]
    assert state["absmax1"] == state["absmax2"] == ["torch.float32", -(-size // 256)]


@pytest.mark.parametrize("engine", [name_of(*each) for each in ENGINES if each[0] == "adafactor"])
def test_adafactor_keeps_a_row_and_a_column(steps: Outcome, engine: str) -> None:
    state = steps.numbers[f"{engine} state"]
    rows, columns = state["shape"]
    assert state["exp_avg_sq_row"] == ["torch.float32", rows]
    assert state["exp_avg_sq_col"] == ["torch.float32", columns]
    assert "exp_avg" not in state


def test_eight_bit_states_go_on_as_they_were_saved_alone(steps: Outcome) -> None:
    assert "the state of adamw8bit cannot be converted" in steps.numbers["refused"]
    assert "resume as it was saved" in steps.numbers["refused"]


@pytest.mark.parametrize("optimizer", ["adamw8bit", "adafactor"])
def test_a_role_of_a_shared_backbone_that_is_not_stepped_stands_still(steps: Outcome, optimizer: str) -> None:
    moved = steps.weights[f"{optimizer} shared"]
    assert max(float(value) for name, value in moved.items() if name.startswith("actor ")) > 0
    assert {float(value) for name, value in moved.items() if name.startswith("critic ")} == {0.0}
