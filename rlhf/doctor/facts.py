"""What a machine has, said in checks of state `info`."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.doctor.checks import Check
from rlhf.doctor.machine import GIB, Disk, MachineFacts
from rlhf.doctor.reading import SHOWN

BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
VECTOR_FLAGS = ("avx2", "avx512f", "avx512bw", "asimd", "sve")


def facts_said(facts: MachineFacts) -> list[Check]:
    """Every fact as a check."""
    return [Check(name, "info", detail) for name, detail in _facts(facts)]


def _facts(facts: MachineFacts) -> Iterator[tuple[str, str]]:
    for number, card in enumerate(facts.cards):
        capability = ".".join(str(part) for part in card.capability)
        yield f"GPU {number}", f"{card.name}, compute capability {capability}, {_free(card.free, card.memory)}"
    if not facts.cards:
        yield "GPU", "torch sees none"
    yield "driver", facts.driver or "no NVIDIA driver is loaded"
    yield "torch", f"{facts.torch}, {f'CUDA {facts.torch_cuda}' if facts.torch_cuda else 'built without CUDA'}"
    yield "NCCL", facts.nccl or "not used without a GPU"
    for tool in facts.tools:
        yield tool.name, f"{tool.version or 'of unknown version'}, {tool.path}" if tool.path else "not found"
    yield "/dev/shm", _of_disk(facts.shared_memory)
    for name, disk in facts.disks.items():
        yield f"disk of {name}" if name != "hub cache" else name, f"{disk.path}: {_of_disk(disk)}"
    yield "hub", "offline (HF_HUB_OFFLINE): only what the cache holds" if facts.hub_offline else "may be asked"
    yield "CPU", f"{facts.cores} cores; {_cpu(facts)}"
    yield "memory", _memory(facts)
    yield "locked memory", "unlimited" if facts.locked_memory is None else f"at most {facts.locked_memory >> 10:,} KiB"
    yield "open files", "unlimited" if facts.open_files is None else f"at most {facts.open_files:,}"
    versions = ((name, facts.versions.get(name, "")) for name in SHOWN if name != "torch")
    yield "packages", ", ".join(f"{name} {version or 'not installed'}" for name, version in versions)


def _free(free: int, size: int) -> str:
    return f"{free / GIB:.1f} of {size / GIB:.1f} GiB free"


def _of_disk(disk: Disk) -> str:
    return _free(disk.free, disk.size)


def _cpu(facts: MachineFacts) -> str:
    vectors = [flag for flag in VECTOR_FLAGS if flag in facts.cpu_flags]
    native = [flag for flag in BF16_FLAGS if flag in facts.cpu_flags]
    return f"{', '.join(vectors) or 'no vector extensions'}; bfloat16 {'by ' + ', '.join(native) if native else 'slow'}"


def _memory(facts: MachineFacts) -> str:
    limit = "" if facts.memory_limit is None else f"; the control group allows {facts.memory_limit / GIB:.1f} GiB"
    return _free(facts.memory_free, facts.memory) + limit
