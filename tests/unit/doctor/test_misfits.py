"""What does not fit together on a machine whose values are written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlhf.doctor.checks import Check
from rlhf.doctor.machine import Card, Disk, MachineFacts, Tool
from rlhf.doctor.misfits import misfits
from rlhf.doctor.reading import driver_version

GIB = 2**30
H100 = Card("NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB, 79 * GIB)
GPU = MachineFacts(
    device_files=("/dev/nvidia0",),
    driver="580.65.06",
    torch="2.11.0+cu130",
    torch_cuda="13.0",
    nccl="2.28.9",
    architectures=("sm_80", "sm_90", "sm_100"),
    cards=(H100,),
    accelerator="cuda",
    tools=(Tool("g++", "/usr/bin/g++", "12.2.0"), Tool("nvcc"), Tool("ninja", "/usr/bin/ninja", "1.11")),
    shared_memory=Disk("/dev/shm", 8 * GIB, 8 * GIB),
    versions={"torch": "2.11.0", "transformers": "5.17.0", "vllm": ""},
    requirements=("torch>=2.9", "transformers<6,>=5.17", 'vllm>=0.12; extra == "vllm"'),
)


def found(name: str, **changes: Any) -> Check:
    """The one check of that name."""
    checks = [check for check in misfits(replace(GPU, **changes)) if check.name == name]
    assert len(checks) == 1
    return checks[0]


def test_a_machine_that_fits_passes_every_check() -> None:
    assert {check.state for check in misfits(GPU)} == {"passed"}


def test_every_failed_check_has_a_fix() -> None:
    broken = replace(
        GPU,
        cards=(),
        accelerator="cpu",
        driver="535.1",
        tools=(),
        versions={"torch": "2.8.0", "transformers": "6.0"},
        shared_memory=Disk("/dev/shm", 2**26, 0),
        torchvision_needs="torch==2.10.0",
    )
    failed = [check for check in misfits(broken) if check.state == "failed"]
    assert len(failed) == 7
    assert all(check.fix for check in failed)


@pytest.mark.parametrize(
    ("driver", "cuda", "state", "fix"),
    [
        ("580.65.06", "13.0", "passed", ""),
        ("579.99", "13.0", "failed", "install driver 580 or newer, or a torch built with CUDA 12"),
        ("470.57.02", "12.8", "failed", "install driver 525 or newer, or a torch built with CUDA 11"),
        ("390.157", "12.8", "failed", "install driver 525 or newer"),
        ("535.104.05", "12.8", "passed", ""),
        ("600.1", "14.0", "skipped", ""),
    ],
)
def test_the_driver_is_as_new_as_torchs_cuda_needs(driver: str, cuda: str, state: str, fix: str) -> None:
    check = found("driver and torch", driver=driver, torch_cuda=cuda)
    assert (check.state, check.fix) == (state, fix)


@pytest.mark.parametrize(
    ("changes", "state", "said"),
    [
        ({"cards": (), "accelerator": "cpu"}, "failed", "DeepSpeed chooses cpu"),
        ({"accelerator": "cpu"}, "failed", "torch sees 1 GPUs and DeepSpeed chooses cpu"),
        ({"cards": (), "accelerator": "cpu", "torch_cuda": ""}, "failed", "built without CUDA"),
        (
            {"cards": (), "accelerator": "cpu", "environment": {"CUDA_VISIBLE_DEVICES": ""}},
            "failed",
            "CUDA_VISIBLE_DEVICES='' hides /dev/nvidia0",
        ),
        (
            {"cards": (), "accelerator": "cpu", "environment": {"DS_ACCELERATOR": "cpu"}},
            "info",
            "as DS_ACCELERATOR=cpu",
        ),
        ({"cards": (), "accelerator": "cpu", "device_files": ()}, "info", "start it with --gpus all"),
        ({"cards": (), "accelerator": "cpu", "device_files": (), "driver": ""}, "info", "there is no NVIDIA GPU"),
    ],
)
def test_a_gpu_that_is_there_is_used(changes: dict[str, Any], state: str, said: str) -> None:
    check = found("GPU in use", **changes)
    assert check.state == state
    assert said in check.detail


@pytest.mark.parametrize(
    ("capability", "state"),
    [((9, 0), "passed"), ((8, 6), "passed"), ((7, 0), "failed"), ((10, 3), "passed"), ((12, 0), "failed")],
)
def test_torch_has_kernels_for_the_card(capability: tuple[int, int], state: str) -> None:
    """Those of sm_80 run on 8.6 too; none of 9.0 runs on 12.0."""
    assert found("torch's kernels", cards=(replace(H100, capability=capability),)).state == state


@pytest.mark.parametrize(
    ("versions", "state", "said"),
    [
        ({"torch": "2.9.0", "transformers": "5.24.0"}, "passed", "every installed"),
        ({"torch": "2.8.1", "transformers": "5.24.0"}, "failed", "torch is 2.8.1; torch>=2.9 is needed"),
        (
            {"torch": "2.9.0", "transformers": "6.0.0"},
            "failed",
            "transformers is 6.0.0; transformers<6,>=5.17 is needed",
        ),
        ({"torch": "2.9.0"}, "failed", "transformers is not installed"),
        ({"torch": "2.9.0", "transformers": "5.20", "vllm": "0.11"}, "failed", "vllm is 0.11; vllm>=0.12 is needed"),
    ],
)
def test_versions_lie_in_the_projects_own_ranges(versions: dict[str, str], state: str, said: str) -> None:
    check = found("versions", versions=versions)
    assert check.state == state
    assert said in check.detail


@pytest.mark.parametrize(("needs", "state"), [("torch==2.11.0", "passed"), ("torch==2.10.0", "failed")])
def test_torchvision_is_for_this_torch(needs: str, state: str) -> None:
    assert found("torchvision", torchvision_needs=needs).state == state


@pytest.mark.parametrize(
    ("size", "free", "cards", "state", "fix"),
    [
        (64, 64, 1, "passed", ""),
        (64, 64, 8, "failed", "--shm-size"),  # Docker's default, and 8 x 64 MiB
        (8192, 500, 8, "failed", "remove what lies in /dev/shm"),
        (8192, 512, 8, "passed", ""),
    ],
)
def test_shared_memory_is_enough_for_the_ranks(size: int, free: int, cards: int, state: str, fix: str) -> None:
    disk = Disk("/dev/shm", size * 2**20, free * 2**20)
    check = found("/dev/shm", shared_memory=disk, cards=(H100,) * cards)
    assert check.state == state
    assert fix in check.fix


@pytest.mark.parametrize(
    ("present", "state", "fix"),
    [
        (("g++", "ninja"), "passed", ""),
        (("g++",), "failed", "pip install ninja"),
        (("nvcc",), "failed", "apt-get install g++ and pip install ninja"),
    ],
)
def test_a_compiler_is_there_to_build_ops(present: tuple[str, ...], state: str, fix: str) -> None:
    check = found("compiler", tools=tuple(Tool(name, f"/usr/bin/{name}") for name in present))
    assert (check.state, check.fix) == (state, fix)


def test_the_version_of_a_driver_is_read_from_the_kernels_file() -> None:
    closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12"
    opened = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs)\n"
    assert [driver_version(text) for text in (closed, opened, "")] == ["535.104.05", "580.65.06", ""]
