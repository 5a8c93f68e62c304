"""A machine's GPU that a run would leave unused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.engine.accelerator import gpu_device_files, require_gpu_used
from rlhf.errors import TrainingError

GPU = ["/dev/nvidia0"]


def test_a_gpu_that_torch_cannot_use_is_an_error_that_names_both_ways_out() -> None:
    with pytest.raises(
        TrainingError, match=r"this machine has a GPU \(/dev/nvidia0\), and torch cannot use it"
    ) as caught:
        require_gpu_used("cpu", devices=GPU, environment={})
    assert "rlhf doctor" in caught.value.fix
    assert "DS_ACCELERATOR=cpu" in caught.value.fix


@pytest.mark.parametrize(
    ("chosen", "devices", "environment"),
    [
        ("cuda", GPU, {}),
        ("cpu", [], {}),
        ("cpu", GPU, {"DS_ACCELERATOR": "cpu"}),
        ("cpu", GPU, {"CUDA_VISIBLE_DEVICES": ""}),
        ("cpu", GPU, {"CUDA_VISIBLE_DEVICES": "-1"}),
    ],
)
def test_the_cpu_may_be_asked_for(chosen: str, devices: list[str], environment: dict[str, str]) -> None:
    require_gpu_used(chosen, devices=devices, environment=environment)


def test_the_launchers_own_list_of_devices_does_not_ask_for_the_cpu() -> None:
    with pytest.raises(TrainingError):
        require_gpu_used("cpu", devices=GPU, environment={"CUDA_VISIBLE_DEVICES": "0,1"})


def test_only_cards_count_as_gpus(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia12", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert gpu_device_files(tmp_path) == [f"{tmp_path}/nvidia0", f"{tmp_path}/nvidia12"]


START = """
from rlhf.engine import accelerator
from rlhf.engine.ranks import session

accelerator.gpu_device_files = lambda: ["/dev/nvidia0"]
with session(1):
    print("trains")
"""


def test_a_stage_does_not_start_with_a_gpu_that_torch_cannot_use() -> None:
    asked = {
        name: value for name, value in os.environ.items() if name not in ("DS_ACCELERATOR", "CUDA_VISIBLE_DEVICES")
    }
    done = subprocess.run(
        [sys.executable, "-c", START], env=asked, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert "trains" not in done.stdout
    assert "TrainingError: this machine has a GPU (/dev/nvidia0)" in done.stderr
