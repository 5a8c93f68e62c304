"""Optimizer states in CPU memory beside a device, gradients that are dropped, and roles parked in CPU memory.

The steps are those of tests/distributed/test_offload.py. On a GPU sums over tokens come in any order, so what is equal
bit for bit on a CPU is compared within rounding here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from tests.distributed.conftest import WORKERS, Outcome, inputs, paths, problem, read_outcome  # noqa: F401 - fixtures
from tests.gpu.conftest import Record, Target, run_gpu_worker
from tests.support.launcher import run_deepspeed

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

STAGES = (2, 3)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, target: Target, inputs: Path) -> Outcome:  # noqa: F811
    out = tmp_path_factory.mktemp("offload")
    run_deepspeed(WORKERS / "offload.py", inputs, out, ranks=1, env=target.environment, timeout=220)
    return read_outcome(out)


def require_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Within a five-hundredth of what one update moves a weight by."""
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert (value - expected[name]).abs().max() <= 2e-5, name


@pytest.mark.parametrize("stage", STAGES)
def test_offloaded_steps_are_those_of_the_resident_optimizer(outcome: Outcome, stage: int) -> None:
    offloaded, resident = (f"zero{stage} {kind}" for kind in ("offloaded", "resident"))
    assert outcome.numbers[f"optimizer {offloaded}"] == "DeepSpeedCPUAdam"
    for found, expected in zip(
        outcome.numbers[f"steps {offloaded}"], outcome.numbers[f"steps {resident}"], strict=True
    ):
        assert found == pytest.approx(expected, rel=2e-4)
    for kind in ("trained", "average"):
        require_close(outcome.weights[f"{kind} {offloaded}"], outcome.weights[f"{kind} {resident}"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_dropped_gradient_leaves_no_trace(outcome: Outcome, stage: int) -> None:
    assert all(norm > 0.1 for norm in outcome.numbers[f"discarded zero{stage}"])
    require_close(outcome.weights[f"with discards zero{stage}"], outcome.weights[f"without zero{stage}"])
    branches = (outcome.weights[f"branches zero{stage} {kind}"] for kind in ("offloaded", "resident"))
    require_close(*branches)


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_continues_the_uninterrupted_one(outcome: Outcome, stage: int) -> None:
    expected = outcome.weights[f"uninterrupted zero{stage}"]
    require_close(outcome.weights[f"resumed zero{stage}"], expected)
    require_close(outcome.weights[f"resumed on the device zero{stage}"], expected)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_shared_role_that_is_not_stepped_stays(outcome: Outcome, stage: int) -> None:
    assert outcome.numbers[f"actor still zero{stage} offloaded"] == [True, True, False]
    require_close(outcome.weights[f"roles zero{stage} offloaded"], outcome.weights[f"roles zero{stage} resident"])


def test_a_parked_role_leaves_the_device_and_computes_the_same(
    target: Target, models: Path, tmp_path: Path, record_property: Record
) -> None:
    found = run_gpu_worker("parking.py", models, target=target, out=tmp_path)
    for use in found["uses"]:
        assert use == pytest.approx(found["resident"], abs=1e-3)
    for name, value in found["speed"].items():
        record_property(name, round(value, 3))
    if target.on_gpu:
        assert found["held in use"] - found["held parked"] >= found["bytes"]
        assert found["held parked"] - found["held before"] < found["bytes"] / 10
