"""Memory of one rank by role and part in each phase of a stage; the largest phase is the peak of the run.

A GPU's allocator reuses its own blocks, so a phase counts as it is, plus a share lost between blocks. On the CPU the C
library keeps small blocks once they were used: the most that small blocks take, in whichever phase, is added to the
large blocks of every other phase, and a share of it is lost to fragments. Weights that ZeRO 3 gathers and releases lie
in those fragments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from rlhf.plan.shapes import ModelShape
from rlhf.plan.states import Placement, States

MIB, GIB = 2**20, 2**30
CONTEXT = {"gpu": 1.0 * GIB, "cpu": 100 * MIB}  # CUDA, cuBLAS and NCCL; threads and the matrix library's buffers
LOST = {"gpu": 0.04, "cpu": 0.2}  # of allocated memory; on the CPU of small blocks alone
LOST_WITH_ADAPTERS = 0.4  # each adapted layer makes and frees several tensors between those that are kept
SHARED_BUFFER = 64 * MIB  # of DeepSpeed's CPU collectives, per rank
LARGE_BLOCK = 32 * MIB  # the C library maps such a block, and returns it when it is freed


@dataclass(frozen=True)
class Allocation:
    """Bytes of one part of a role; `small`: in blocks that the C library keeps; `transient`: gathered and released."""

    role: str
    part: str
    bytes: float
    small: bool = False
    transient: bool = False


@dataclass
class MemoryPlan:
    """Allocations of one rank by phase, and in CPU memory beside a GPU; `adapted`: with LoRA."""

    placement: Placement
    phases: dict[str, list[Allocation]]
    host: list[Allocation] = field(default_factory=list)
    adapted: bool = False

    def phase_bytes(self, name: str) -> float:
        phase = self.phases[name]
        if self.placement.device == "gpu":
            return self._context + (1 + LOST["gpu"]) * total(phase)
        large = total(each for each in phase if not each.small)
        lost = LOST_WITH_ADAPTERS if self.adapted else LOST["cpu"]
        return self._context + large + max(_small_bytes(each, lost) for each in self.phases.values())

    @property
    def _context(self) -> float:
        together = self.placement.device == "cpu" and self.placement.world_size > 1
        return CONTEXT[self.placement.device] + (SHARED_BUFFER if together else 0)

    @property
    def largest(self) -> str:
        return max(self.phases, key=self.phase_bytes)

    @property
    def peak(self) -> float:
        return self.phase_bytes(self.largest)

    @property
    def host_bytes(self) -> float:
        """Bytes a rank needs in CPU memory beside its GPU."""
        return total(self.host)

    def by_role(self, phase: str) -> dict[str, dict[str, float]]:
        """Bytes by role and part; the process itself and what is lost between blocks under `around`."""
        table: dict[str, dict[str, float]] = defaultdict(dict)
        for each in self.phases[phase]:
            table[each.role][each.part] = table[each.role].get(each.part, 0.0) + each.bytes
        lost = self.phase_bytes(phase) - total(self.phases[phase]) - self._context
        table["around"] = {"context": self._context, "lost and kept": lost}
        return dict(table)


def total(allocations: Iterable[Allocation]) -> float:
    return sum(each.bytes for each in allocations)


def _small_bytes(phase: Iterable[Allocation], lost: float) -> float:
    """Small blocks of a phase with the space between them: fragments, or gathered weights that lie in them."""
    small = [each for each in phase if each.small]
    kept = total(each for each in small if not each.transient)
    return kept + max(lost * kept, total(each for each in small if each.transient))


@dataclass(frozen=True)
class Role:
    """A model or an engine of a run; `work`: the allocations of a pass through it (with a graph if it learns)."""

    name: str
    shape: ModelShape
    states: States
    zero_stage: int
    learns: bool
    work: list[Allocation]
    parked: bool = False

    def part(self, name: str, size: float, *, small: bool = False, transient: bool = False) -> list[Allocation]:
        """One part of this role; none without bytes."""
        return [Allocation(self.name, name, size, small, transient)] if size else []

    def resident(self) -> list[Allocation]:
        """Allocations that stay throughout the run."""
        states = self.states
        held = self.part("weights", states.weights) + self.part("adapters", states.adapters, small=True)
        return held + self._split("optimizer", states.master + states.moments) + self.part("average", states.average)

    def gradients(self) -> list[Allocation]:
        """Allocations from a backward pass to the step."""
        return self._split("gradients", self.states.gradients)

    def communication(self, *, kept: bool = False) -> list[Allocation]:
        """DeepSpeed's buffers while gradients are exchanged; those `kept` after it are the buckets of ZeRO 3."""
        states = self.states
        size = states.reduction if not kept else states.bucket if self.zero_stage == 3 else 0.0
        return self.part("communication", size)

    def gathered(self) -> list[Allocation]:
        """Whole weights under ZeRO 3 while they are used."""
        return self.part("gathered weights", self.states.gathered, small=True, transient=True)

    def _split(self, name: str, size: float) -> list[Allocation]:
        """Tensors per parameter, the small blocks among them apart: ZeRO 0 has such tensors, the others flat ones."""
        shape, share = self.shape, 0.0
        if self.zero_stage == 0 and self.states.adapters:
            share = 1.0
        elif self.zero_stage == 0:
            sizes = [shape.embedding, 0 if shape.scalar else shape.head]
            sizes += [given * out for given, out in shape.linears.values()] * shape.layers
            share = 1 - sum(size for size in sizes if size >= LARGE_BLOCK / 4) / shape.parameters
        return self.part(name, size * share, small=True) + self.part(name, size * (1 - share))


def training_phases(roles: list[Role], placement: Placement, *, accumulates: bool) -> dict[str, list[Allocation]]:
    """The beginning and the end of the backward pass of each trained role, and its step."""
    phases: dict[str, list[Allocation]] = {}
    learning = [role for role in roles if role.learns]
    base = [each for role in roles if not role.parked for each in role.resident()]
    gradients = {role.name: role.gradients() for role in learning}
    buckets = {role.name: role.communication(kept=True) for role in learning}
    for role in learning:
        rest = [each for name in gradients if name != role.name for each in gradients[name] + buckets[name]]
        own = gradients[role.name] if accumulates else []
        # A GPU's buckets are whole from the first gradient on; the CPU's memory is touched as they fill.
        early = role.communication() if placement.device == "gpu" else buckets[role.name]
        phases[f"{role.name}: backward begins"] = base + rest + own + early + role.work + role.gathered()
        late = [each for each in role.work if each.part != "activations"]
        # At ZeRO 1 and 2 the gradients of this pass lie in the buckets, beside those of the passes before.
        summed = own if role.zero_stage in (1, 2) else gradients[role.name]
        phases[f"{role.name}: backward ends"] = base + rest + summed + role.communication() + late + role.gathered()
    held = [each for name in gradients for each in gradients[name] + buckets[name]]
    for role in learning:
        phases[f"{role.name}: optimizer step"] = base + held + role.part("update", role.states.step)
    return phases


def inference_phases(roles: list[Role]) -> dict[str, list[Allocation]]:
    """A forward pass of each frozen role; offloaded ones are on the device together until training continues."""
    base = [each for role in roles for each in role.resident()]
    return {f"{role.name}: forward pass": base + role.work + role.gathered() for role in roles if not role.learns}
