"""The tests of a GPU machine, tried on a CPU at a tiny size; and what they say where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.launcher import REPOSITORY

pytestmark = pytest.mark.full

# Those of offload, stages and speed take minutes on a CPU, and train as other tests here do.
POINTS = ("attention", "head", "steps", "memory", "ranks")


def run_gpu_tests(folder: Path, *words: str) -> tuple[str, ElementTree.Element]:
    """What pytest printed, and its report."""
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", f"--junitxml={report}", "-p", "no:cacheprovider", *words]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout, ElementTree.parse(report).getroot()


def test_without_a_gpu_every_test_is_skipped_and_says_so(tmp_path: Path) -> None:
    said, report = run_gpu_tests(tmp_path, "tests/gpu")
    cases = list(report.iter("testcase"))
    assert len(cases) > 40
    assert all(case.find("skipped") is not None for case in cases)
    assert "no CUDA GPU here" in said


@pytest.mark.timeout(300)
def test_the_gpu_tests_run_on_a_cpu(tmp_path: Path) -> None:
    files = [f"tests/gpu/test_{point}.py" for point in POINTS]
    said, report = run_gpu_tests(tmp_path, *files, "--device", "cpu", "--tiny")
    ran = {
        case.get("classname", "").rpartition("test_")[2]
        for case in report.iter("testcase")
        if case.find("skipped") is None
    }
    assert ran == set(POINTS)
    assert "without cuDNN" in said  # recorded figures are printed
