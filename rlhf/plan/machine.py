"""The machine a run is planned for: the flags of `rlhf plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlhf.config.flag_values import positive
from rlhf.config.flags import flag

GIGABYTE = 1e9
UTILISATION = 0.35  # of peak speed
Device = Literal["gpu", "cpu"]


def _gigabytes(text: str) -> float:
    return float(text) * GIGABYTE


@dataclass(frozen=True)
class Machine:
    """Ranks: `gpus` on each of `nodes`, of `memory` bytes each; on the CPU a rank is a process."""

    gpus: int = flag(1, "GPUs per machine", parse=positive)
    nodes: int = flag(1, "machines", parse=positive)
    memory: float = flag(
        80 * GIGABYTE, "memory of one GPU", name="--gpu-memory", metavar="GB", parse=_gigabytes, shown="80"
    )
    device: Device = "gpu"

    @property
    def ranks(self) -> int:
        return self.gpus * self.nodes
