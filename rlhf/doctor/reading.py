"""Reads what this machine has. Nothing here judges, and nothing fails where a thing is absent."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import psutil

from rlhf.doctor.machine import Card, Disk, MachineFacts, Tool
from rlhf.engine.accelerator import chosen_accelerator, gpu_device_files
from rlhf.engine.container_memory import free_host_memory, group_memory

DISTRIBUTION = "rlhf-ko"
TOOLS = ("g++", "nvcc", "ninja")
SHOWN = ("torch", "transformers", "deepspeed", "accelerate", "peft", "bitsandbytes", "liger-kernel", "vllm")
VARIABLES = ("DS_ACCELERATOR", "CUDA_VISIBLE_DEVICES", "TORCH_EXTENSIONS_DIR", "HF_HUB_OFFLINE")
TOOL_LIMIT_S = 20


def read_machine(runs: str | Path = "runs") -> MachineFacts:
    """Reads everything; imports torch and DeepSpeed, and starts the compilers to ask their versions.

    Args:
        runs: the folder that runs are written to; it need not exist.
    """
    import torch
    from huggingface_hub import constants

    memory, group = psutil.virtual_memory(), group_memory()
    requirements = _requirements(DISTRIBUTION)
    return MachineFacts(
        device_files=tuple(gpu_device_files()),
        driver=driver_version(_text("/proc/driver/nvidia/version")),
        torch=torch.__version__,
        torch_cuda=torch.version.cuda or "",
        nccl=_nccl(),
        architectures=tuple(torch.cuda.get_arch_list()),
        cards=_cards(),
        accelerator=chosen_accelerator(),
        environment={name: os.environ[name] for name in VARIABLES if name in os.environ},
        tools=tuple(_tool(name) for name in TOOLS),
        shared_memory=_disk("/dev/shm"),
        disks={"runs": _disk(runs), "hub cache": _disk(constants.HF_HUB_CACHE)},
        hub_offline=constants.HF_HUB_OFFLINE,
        cores=len(os.sched_getaffinity(0)),
        cpu_flags=_cpu_flags(_text("/proc/cpuinfo")),
        memory=memory.total,
        memory_free=free_host_memory(),
        memory_limit=None if group is None else group.limit,
        locked_memory=_limit(resource.RLIMIT_MEMLOCK),
        open_files=_limit(resource.RLIMIT_NOFILE),
        versions=_versions(requirements),
        requirements=requirements,
        torchvision_needs=next((each for each in _requirements("torchvision") if re.match(r"torch\b", each)), ""),
    )


def driver_version(text: str) -> str:
    """The version in /proc/driver/nvidia/version; empty where there is none."""
    found = re.search(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found.group(1) if found else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cards() -> tuple[Card, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        properties, (free, total) = torch.cuda.get_device_properties(index), torch.cuda.mem_get_info(index)
        found.append(Card(properties.name, (properties.major, properties.minor), total, free))
    return tuple(found)


def _nccl() -> str:
    import torch

    if not torch.cuda.is_available():
        return ""
    return ".".join(str(part) for part in torch.cuda.nccl.version())


def _tool(name: str) -> Tool:
    path = shutil.which(name)
    if path is None:
        return Tool(name)
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=TOOL_LIMIT_S, check=False)
    numbers = re.findall(r"\d+\.\d+(?:\.\d+)*", done.stdout)
    return Tool(name, path, numbers[-1] if numbers else "")


def _disk(path: str | Path) -> Disk:
    """The file system that holds `path`, or will hold it."""
    there = Path(path).expanduser().resolve()
    while not there.exists() and there != there.parent:
        there = there.parent
    usage = shutil.disk_usage(there)
    return Disk(str(path), usage.total, usage.free)


def _cpu_flags(cpuinfo: str) -> frozenset[str]:
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, flags=re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def _limit(kind: int) -> int | None:
    soft = resource.getrlimit(kind)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _requirements(distribution: str) -> tuple[str, ...]:
    try:
        return tuple(metadata.requires(distribution) or ())
    except metadata.PackageNotFoundError:
        return ()


def _versions(requirements: Iterable[str]) -> dict[str, str]:
    from packaging.requirements import Requirement

    names = dict.fromkeys((*SHOWN, *(Requirement(each).name for each in requirements)))
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found
