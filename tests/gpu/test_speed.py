"""A random model of 1.3 B parameters: decode steps, tokens a second and MFU of SFT, peak memory beside the plan.

Figures are recorded. A step must run, and its figures must be possible.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.gpu.conftest import Record, Target
from tests.support.launcher import REPOSITORY

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, target: Target) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("speed") / "gpu.json"
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu.py"), "--out", str(out), "--only", "sft,decode"]
    command += ["--device", target.device.type, "--part-s", "70", *(["--tiny"] if target.tiny else [])]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, check=False)
    assert out.is_file(), done.stderr[-4000:]
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    found["output"] = done.stderr
    return found


@pytest.mark.parametrize("part", ["sft varlen", "sft sdpa"])
def test_training_step(measured: dict[str, Any], target: Target, part: str, record_property: Record) -> None:
    found = measured["parts"].get(part, {})
    if "skipped" in found and not target.on_gpu:
        pytest.skip(found["skipped"])
    assert "tokens_per_s" in found, measured["output"][-4000:]
    for name in ("tokens_per_s", "mfu", "peak_bytes", "allocated_bytes", "planned_bytes"):
        record_property(name, found.get(name))
    assert found["tokens_per_s"] > 0
    assert found["planned_bytes"] > 0
    if measured["peak_flops_per_s"]:
        assert 0 < found["mfu"] < 1


def test_decode_steps(measured: dict[str, Any], record_property: Record) -> None:
    found = measured["parts"].get("decode", {})
    assert "slots" in found, measured["output"][-4000:]
    for slots, figures in found["slots"].items():
        record_property(f"{slots} slots", {name: round(value, 3) for name, value in figures.items()})
        assert figures["step_ms"] > 0
