"""Every step of the three stages on the device; in float32 its numbers are those of a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.models.attention_choice import KernelSupport, varlen_obstacle
from tests.gpu.conftest import Record, Target, run_gpu_worker
from tests.support.launcher import together

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(150)]

KINDS = ("float32:sdpa", "bfloat16:sdpa", "bfloat16:varlen")
NUM_STEPS = 30


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory, target: Target, models: Path) -> list[dict[str, Any]]:
    """Of the device in every kind it can run, and of a CPU in float32."""
    kinds = [kind for kind in KINDS if kind.endswith("sdpa") or target.on_gpu]
    cpu = Target(torch.device("cpu"), target.tiny)
    folders = [tmp_path_factory.mktemp(name) for name in ("device", "cpu")]
    return together(
        lambda: run_gpu_worker("steps.py", models, *kinds, target=target, out=folders[0]),
        lambda: run_gpu_worker("steps.py", models, KINDS[0], target=cpu, out=folders[1]),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_runs(walks: list[dict[str, Any]], target: Target, kind: str, record_property: Record) -> None:
    """How often the host waits for the device is recorded, by step."""
    if kind not in walks[0]:
        pytest.skip(varlen_obstacle(8, torch.bfloat16, KernelSupport.on(target.device)))
    steps = walks[0][kind]
    assert "error" not in steps, steps["error"]
    assert len(steps) == NUM_STEPS
    for name, step in steps.items():
        if step["waits"]:
            record_property(f"{name}: the host waits", f"{step['waits']} times, {step['where'][:3]}")


def test_float32_computes_what_a_cpu_does(walks: list[dict[str, Any]]) -> None:
    """Losses, gradient norms, log-probabilities and scores; sums in another order differ in the last digits."""
    device, cpu = (walk[KINDS[0]] for walk in walks)
    compared = [name for name, step in cpu.items() if step["numbers"]]
    assert len(compared) == 11
    for name in compared:
        assert device[name]["numbers"] == pytest.approx(cpu[name]["numbers"], rel=2e-4, abs=2e-4), name
