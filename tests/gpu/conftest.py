"""Where the tests of this folder compute, and the workers they start.

    python -m pytest -m gpu tests/gpu                          on a GPU (make test-gpu)
    python -m pytest -m gpu tests/gpu --device cpu --tiny      tries the tests themselves

Figures are recorded as properties of a test, in the JUnit report and at the end of the output; none is asserted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.launcher import run_alone

WORKERS = Path(__file__).parent / "workers"
Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Target:
    """Device, and whether sizes are those of a trial."""

    device: torch.device
    tiny: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a process that computes there."""
        return {"DS_ACCELERATOR": self.device.type}

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


@pytest.fixture(scope="session", autouse=True)
def target(request: pytest.FixtureRequest) -> Target:
    device = torch.device(request.config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here (--device cpu --tiny tries these tests without one)")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
    return Target(device, request.config.getoption("--tiny"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_neox: Path, tiny_llama: Path, tiny_reward: Path) -> Path:
    """A folder of tiny models by name."""
    folder = tmp_path_factory.mktemp("models")
    for name, path in (("neox", tiny_neox), ("llama", tiny_llama), ("reward", tiny_reward)):
        (folder / name).symlink_to(path)
    return folder


def run_gpu_worker(name: str, *words: object, target: Target, out: Path, timeout: float = 200) -> dict[str, Any]:
    """What a worker of this folder wrote; `--tiny` and the words behind it are the worker's."""
    out.mkdir(parents=True, exist_ok=True)
    result = out / "result.json"
    given = [str(word) for word in words] + (["--tiny"] if target.tiny else [])
    run_alone(WORKERS / name, result, *given, env=target.environment, timeout=timeout)
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The recorded figures, below the results."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    figures = [(report.nodeid, report.user_properties) for report in reports if report.user_properties]
    if figures:
        terminalreporter.section("figures")
    for test, properties in figures:
        terminalreporter.write_line(test.rpartition("tests/gpu/")[2])
        for name, value in properties:
            terminalreporter.write_line(f"    {name}: {value}")
