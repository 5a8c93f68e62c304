"""The GPU kit: a step that hangs is ended with its children, and the reports of points become one."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest

import rlhf

ROOT = Path(rlhf.__file__).parents[1]
KIT = ROOT / "tests" / "gpu" / "kit"
HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_kit_steps", KIT / "steps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_kit_steps", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_point_is_a_file_of_tests(steps: ModuleType) -> None:
    files = {file.stem.removeprefix("test_") for file in (ROOT / "tests" / "gpu").glob("test_*.py")}
    assert set(steps.LIMITS) == files | {"doctor", "benchmark"}


@pytest.mark.full
def test_a_step_that_hangs_is_ended_with_a_child_in_a_session_of_its_own(steps: ModuleType, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as file:
        outcome = steps.ended([sys.executable, "-c", HANGS], 3.0, file, subprocess.DEVNULL)
    assert outcome == "no end after 3 s"
    child = int(said.read_text())
    for _ in range(50):
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail("the child is alive")


@pytest.mark.parametrize(("code", "outcome"), [("pass", "passed"), ("raise SystemExit(3)", "failed with status 3")])
def test_how_a_step_ended(steps: ModuleType, code: str, outcome: str) -> None:
    assert steps.ended([sys.executable, "-c", code], 30.0, subprocess.DEVNULL, subprocess.DEVNULL) == outcome


def test_one_failure_does_not_take_the_rest(steps: ModuleType, tmp_path: Path) -> None:
    """And a step for which no time is left is named."""
    kit = steps.Kit(tmp_path, "cpu", True, time.monotonic() + 60)

    def act(code: str) -> Callable[[float], str]:
        return lambda limit: steps.ended([sys.executable, "-c", code], limit, subprocess.DEVNULL, subprocess.DEVNULL)

    kit.run("head", act("raise SystemExit(1)"))
    assert kit.failed
    kit.run("ranks", act("pass"))
    kit.end = time.monotonic()
    kit.run("steps", act("pass"))
    lines = (tmp_path / "summary.txt").read_text().splitlines()
    said = [re.sub(r" +[\d.]+ s  ", ": ", line) for line in lines]
    assert said == ["head: failed with status 1", "ranks: passed", "steps: not started: no time is left"]


def test_reports_become_one(steps: ModuleType, tmp_path: Path) -> None:
    whole = tmp_path / "points.xml"
    for name in ("a", "b"):
        report = tmp_path / f"{name}.xml"
        report.write_text(f'<testsuites><testsuite name="{name}"><testcase name="t" /></testsuite></testsuites>')
        steps.add_report(report, whole)
        assert not report.exists()
    steps.add_report(tmp_path / "missing.xml", whole)
    assert re.findall(r'testsuite name="(\w)"', whole.read_text()) == ["a", "b"]
