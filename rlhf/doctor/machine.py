"""What a machine has, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU that torch sees; memory in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int
    free: int


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system, or /dev/shm; sizes in bytes."""

    path: str
    size: int
    free: int


@dataclass(frozen=True, slots=True)
class Tool:
    """A program; path and version are empty where it is not found."""

    name: str
    path: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """All that the checks look at. `reading.read_machine` fills it in.

    Args:
        device_files: /dev/nvidia0 and so on, which this process could open.
        driver: version of the NVIDIA driver that the kernel has loaded; empty without one.
        torch_cuda: the CUDA that torch is built with; empty for a build without CUDA.
        architectures: what torch's kernels are compiled for, such as sm_90.
        accelerator: what DeepSpeed chooses.
        versions: installed distributions of this project's requirements and a few more; empty where one is absent.
        requirements: of this project, as its metadata states them.
        torchvision_needs: torchvision's requirement of torch; empty where there is no torchvision.
        memory_free: in CPU memory, within the limit of the control group.
        memory_limit: of the control group, in bytes; None without one. Also the ulimits: None is unlimited.
    """

    device_files: tuple[str, ...] = ()
    driver: str = ""
    torch: str = ""
    torch_cuda: str = ""
    nccl: str = ""
    architectures: tuple[str, ...] = ()
    cards: tuple[Card, ...] = ()
    accelerator: str = "cpu"
    environment: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    shared_memory: Disk = Disk("/dev/shm", 0, 0)
    disks: Mapping[str, Disk] = field(default_factory=dict)
    hub_offline: bool = False
    cores: int = 1
    cpu_flags: frozenset[str] = frozenset()
    memory: int = 0
    memory_free: int = 0
    memory_limit: int | None = None
    locked_memory: int | None = None
    open_files: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    torchvision_needs: str = ""

    @property
    def ranks(self) -> int:
        """Ranks that the launcher starts: one per GPU, one on a CPU."""
        return max(1, len(self.cards))

    def tool(self, name: str) -> Tool:
        return next((tool for tool in self.tools if tool.name == name), Tool(name))
