"""What a CPU keeps of small blocks: their high-water mark, and the larger of fragments and what passes through them."""

import pytest

from rlhf.plan.memory import CONTEXT, LOST, LOST_WITH_ADAPTERS, Allocation, MemoryPlan
from rlhf.plan.states import Placement

CPU, GPU = Placement(1, "cpu", "float32"), Placement(1, "gpu", "bfloat16")
GIB = 2.0**30


def plan(placement: Placement, gathered: float, *, adapted: bool = False) -> MemoryPlan:
    busy = [
        Allocation("model", "activations", 2 * GIB, True),
        Allocation("model", "gathered weights", gathered, True, True),
    ]
    return MemoryPlan(placement, {"backward": busy, "step": [Allocation("model", "update", GIB)]}, adapted=adapted)


@pytest.mark.parametrize(
    ("gathered", "adapted", "kept"),
    [
        (0, False, (1 + LOST["cpu"]) * 2 * GIB),
        (0, True, (1 + LOST_WITH_ADAPTERS) * 2 * GIB),
        (0.1 * GIB, False, (1 + LOST["cpu"]) * 2 * GIB),  # lies in the fragments
        (GIB, True, 3 * GIB),  # more than they hold
    ],
)
def test_small_blocks_stay_in_every_phase(gathered: float, adapted: bool, kept: float) -> None:
    found = plan(CPU, gathered, adapted=adapted)
    assert found.phase_bytes("backward") == pytest.approx(CONTEXT["cpu"] + kept)
    assert found.phase_bytes("step") == pytest.approx(CONTEXT["cpu"] + kept + GIB)
    assert found.largest == "step"


def test_a_gpu_counts_each_phase_as_it_is() -> None:
    found = plan(GPU, GIB)
    assert found.phase_bytes("backward") == pytest.approx(CONTEXT["gpu"] + (1 + LOST["gpu"]) * 3 * GIB)
    assert found.phase_bytes("step") == pytest.approx(CONTEXT["gpu"] + (1 + LOST["gpu"]) * GIB)
