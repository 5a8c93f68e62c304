"""The benchmarks that need no other library, at their quickest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rlhf

ROOT = Path(rlhf.__file__).parents[1]


def run(*words: str) -> str:
    """A script to its end; what it said on stderr."""
    command = [sys.executable, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.parametrize(
    ("curve", "numbers"), [("check", [200, 400]), pytest.param("slots", [1, 2], marks=pytest.mark.full)]
)
def test_scaling_measures_fits_and_goes_on_where_it_was_left(curve: str, numbers: list[int], tmp_path: Path) -> None:
    out, work = tmp_path / "scaling.json", tmp_path / "work"
    words = ("benchmarks/scaling.py", "--quick", "--only", curve, "--out", str(out), "--work", str(work))
    said = run(*words)
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    (measured,) = found["curves"].values()
    assert [point["x"] for point in measured["points"]] == numbers
    assert all(point["time_s"] > 0 and point["memory_mib"] > 0 for point in measured["points"])
    assert measured["machine"]["product_s"] > 0
    assert len(found["outlook"]) == 27
    assert said.count("MiB") == 2
    out.unlink()
    assert "MiB" not in run(*words)  # every point is kept
    assert json.loads(out.read_text(encoding="utf-8"))["curves"] == found["curves"]


@pytest.mark.full
def test_a_profile_is_by_operator_and_of_the_host(tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    run("benchmarks/step_profile.py", "--quick", "--out", str(out))
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert set(found["stages"]) == {"sft", "reward", "ppo"}
    for stage in found["stages"].values():
        shown = sum(each["share"] for each in stage["operators"])
        assert 0.9 < shown + stage["others"] + stage["python"] < 1.1
        assert any(each["operator"] == "aten::addmm" for each in stage["operators"])
    assert {"stage 1, per micro-batch", "decode step, 8 slots", "token, 64 slots"} <= set(found["host"])
    assert all(each["launches"] > 1 for each in found["host"].values())
