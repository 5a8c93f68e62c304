"""What one rank holds, part by part, role by role, in each phase of a stage; the largest phase is the run's peak.

A GPU's allocator hands blocks back to itself, so a phase counts as it is, plus a share that is lost between blocks. On
the CPU the C library keeps small blocks once they were used: what small blocks need at most, in whichever phase, stays
beside the large ones of every other phase, and a share of it is lost to fragments. Weights that ZeRO 3 gathers and lets
go lie in those fragments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rlhf.plan.shapes import ModelShape
from rlhf.plan.states import Placement, States

MIB, GIB = 2**20, 2**30
CONTEXT = {"gpu": 1.0 * GIB, "cpu": 100 * MIB}  # CUDA, cuBLAS and NCCL; threads and the matrix library's buffers
LOST = {"gpu": 0.04, "cpu": 0.2}  # of what is allocated; on the CPU of small blocks alone
LOST_WITH_ADAPTERS = 0.4  # each adapted layer makes and frees several tensors between those that are kept
SHARED_BUFFER = 64 * MIB  # of DeepSpeed's CPU collectives, a rank
LARGE_BLOCK = 32 * MIB  # the C library maps such a block, and returns it when it is freed


@dataclass(frozen=True)
class Need:
    """Bytes of one part of a role; `small`: in blocks that the C library keeps; `passing`: gathered and let go."""

    role: str
    part: str
    bytes: float
    small: bool = False
    passing: bool = False


@dataclass
class MemoryPlan:
    """Needs of one rank by phase, and what lies in CPU memory beside a GPU (bytes a rank); `adapted`: with LoRA."""

    job: Placement
    phases: dict[str, list[Need]]
    host: list[Need] = field(default_factory=list)
    adapted: bool = False

    def phase_bytes(self, name: str) -> float:
        """What a rank holds in a phase."""
        needs = self.phases[name]
        if self.job.device == "gpu":
            return self._around + (1 + LOST["gpu"]) * sum(need.bytes for need in needs)
        large = sum(need.bytes for need in needs if not need.small)
        lost = LOST_WITH_ADAPTERS if self.adapted else LOST["cpu"]
        return self._around + large + max(_small(each, lost) for each in self.phases.values())

    @property
    def _around(self) -> float:
        together = self.job.device == "cpu" and self.job.world_size > 1
        return CONTEXT[self.job.device] + (SHARED_BUFFER if together else 0)

    @property
    def largest(self) -> str:
        """The phase with the peak."""
        return max(self.phases, key=self.phase_bytes)

    @property
    def peak(self) -> float:
        """Bytes a rank needs."""
        return self.phase_bytes(self.largest)

    @property
    def host_bytes(self) -> float:
        """Bytes a rank needs in CPU memory beside its GPU."""
        return sum(need.bytes for need in self.host)

    def by_role(self, phase: str) -> dict[str, dict[str, float]]:
        """Bytes by role and part, the surroundings and losses under their own name."""
        table: dict[str, dict[str, float]] = defaultdict(dict)
        for need in self.phases[phase]:
            table[need.role][need.part] = table[need.role].get(need.part, 0.0) + need.bytes
        counted = sum(need.bytes for need in self.phases[phase])
        table["around"] = {"context": self._around, "lost and kept": self.phase_bytes(phase) - counted - self._around}
        return dict(table)


def _small(needs: Iterable[Need], lost: float) -> float:
    """Small blocks of a phase with what lies between them: fragments, or weights that pass through them."""
    small = [need for need in needs if need.small]
    kept, passing = (sum(need.bytes for need in small if need.passing is which) for which in (False, True))
    return kept + max(lost * kept, passing)


@dataclass(frozen=True)
class Role:
    """A model or an engine of a run. `work` gives the needs of a pass through it (with a graph where it learns)."""

    name: str
    shape: ModelShape
    states: States
    stage: int
    learns: bool
    work: Callable[[], list[Need]]
    parked: bool = False


def resident(role: Role, job: Placement) -> list[Need]:
    """What a role holds all the time."""
    states, share = role.states, small_share(role, job)
    parts = {
        "weights": states.weights,
        "adapters": states.adapters,
        "optimizer": states.master + states.moments,
        "average": states.average,
    }
    needs = [Need(role.name, part, value, part == "adapters") for part, value in parts.items() if value]
    return [split for need in needs for split in _split(need, share if need.part == "optimizer" else 0.0)]


def gradients(role: Role, job: Placement) -> list[Need]:
    """What a role holds from a backward pass to its step."""
    needs = [Need(role.name, "gradients", role.states.gradients)] if role.states.gradients else []
    return [split for need in needs for split in _split(need, small_share(role, job))]


def _split(need: Need, share: float) -> list[Need]:
    """A need in small blocks for that share of it."""
    if not 0 < share < 1:
        return [Need(need.role, need.part, need.bytes, need.small or share == 1)]
    return [
        Need(need.role, need.part, need.bytes * share, True),
        Need(need.role, need.part, need.bytes * (1 - share), False),
    ]


def small_share(role: Role, job: Placement) -> float:
    """Share of a role's per-parameter tensors in small blocks: ZeRO 0 keeps a tensor a parameter, others flat ones."""
    if role.stage > 0 or role.shape.parameters == 0:
        return 0.0
    shape, large = role.shape, LARGE_BLOCK / 4
    sizes = [shape.embedding, 0 if shape.scalar else shape.head]
    matrices = [given * out * shape.layers for given, out in shape.linears.values() if given * out >= large]
    mapped = sum(size for size in sizes if size >= large) + sum(matrices)
    adapted = bool(role.states.adapters)
    return 1.0 if adapted else 1 - mapped / shape.parameters


def reduction(role: Role, job: Placement) -> list[Need]:
    """DeepSpeed's buffers while gradients are exchanged."""
    return [Need(role.name, "communication", role.states.reduction)] if role.states.reduction else []


def training_phases(roles: list[Role], job: Placement, *, accumulates: bool) -> dict[str, list[Need]]:
    """A backward pass of each role that learns, at its beginning and at its end, and the step."""
    phases: dict[str, list[Need]] = {}
    learning = [role for role in roles if role.learns]
    base = [need for role in roles if not role.parked for need in resident(role, job)]
    for role in learning:
        rest = [other for other in learning if other is not role]
        others = [need for other in rest for need in gradients(other, job)] + kept_buckets(rest)
        own = gradients(role, job) if accumulates else []
        # A GPU's buckets are whole from the first gradient on; the CPU's memory is touched as they fill.
        early = reduction(role, job) if job.device == "gpu" else kept_buckets([role])
        phases[f"{role.name}: backward begins"] = base + others + own + early + role.work() + gathered(role)
        late = [need for need in role.work() if need.part != "activations"]
        # At ZeRO 1 and 2 the gradients of this pass lie in the buckets, beside those of the passes before.
        summed = own if role.stage in (1, 2) else gradients(role, job)
        phases[f"{role.name}: backward ends"] = base + others + summed + reduction(role, job) + late + gathered(role)
    held = [need for role in learning for need in gradients(role, job)]
    for role in learning:
        step = [Need(role.name, "update", role.states.step)] if role.states.step else []
        phases[f"{role.name}: optimizer step"] = base + held + step + kept_buckets(learning)
    return phases


def kept_buckets(roles: list[Role]) -> list[Need]:
    """The buckets of ZeRO 3, which are there for good; other stages free theirs after each pass."""
    return [
        Need(role.name, "communication", role.states.bucket) for role in roles if role.stage == 3 and role.states.bucket
    ]


def gathered(role: Role) -> list[Need]:
    """Whole weights under ZeRO 3 while they are used."""
    return [Need(role.name, "gathered weights", role.states.gathered, True, True)] if role.states.gathered else []


def inference_phases(roles: list[Role], job: Placement) -> dict[str, list[Need]]:
    """Each role asked without a graph; offloaded ones are on the device together until training goes on."""
    base = [need for role in roles for need in resident(role, job)]
    return {f"{role.name}: asked": base + role.work() + gathered(role) for role in roles if not role.learns}
