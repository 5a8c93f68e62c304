"""Whether this process uses the GPU that the machine has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rlhf.errors import TrainingError

HIDDEN = ("", "-1", "NoDevFiles")


def gpu_device_files(root: Path = Path("/dev")) -> list[str]:
    """Names of the NVIDIA GPUs that this process could open, such as /dev/nvidia0."""
    return sorted(str(path) for path in root.glob("nvidia[0-9]*"))


def chosen_accelerator() -> str:
    """The name of the accelerator that DeepSpeed chooses, such as cuda or cpu."""
    from deepspeed.accelerator import get_accelerator

    return str(get_accelerator().device_name())


def cpu_asked_for(environment: Mapping[str, str]) -> str:
    """The variable by which the user chose the CPU, as NAME=value; empty where none did."""
    if environment.get("DS_ACCELERATOR") == "cpu":
        return "DS_ACCELERATOR=cpu"
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return f"CUDA_VISIBLE_DEVICES={visible!r}" if visible is not None and visible.strip() in HIDDEN else ""


def require_gpu_used(
    chosen: str, *, devices: list[str] | None = None, environment: Mapping[str, str] = os.environ
) -> None:
    """Refuses to train on the CPU by accident: DeepSpeed falls back to it when torch cannot use the GPU.

    Args:
        chosen: the name of DeepSpeed's accelerator.
        devices: device files of GPUs; None looks.

    Raises: TrainingError when the machine has an NVIDIA GPU, `chosen` is the CPU and nobody asked for that.
    """
    found = gpu_device_files() if devices is None else devices
    if chosen != "cpu" or not found or cpu_asked_for(environment):
        return
    raise TrainingError(
        f"this machine has a GPU ({found[0]}), and torch cannot use it, so that the run would be on the CPU",
        expected="a driver that is new enough for torch's CUDA, and a torch built with CUDA",
        fix="`rlhf doctor` says what is wrong; DS_ACCELERATOR=cpu in the environment trains on the CPU all the same",
    )
