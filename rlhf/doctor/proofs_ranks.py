"""Proof of an all-reduce over the ranks: a sum that is known beforehand, and that shows a lost rank."""

from __future__ import annotations

import torch

from rlhf.doctor.checks import Check
from rlhf.doctor.comparison import dtype_name
from rlhf.engine.ranks import Ranks
from rlhf.engine.reduction import summed

FIX = "set NCCL_P2P_DISABLE=1, and if that does not help NCCL_IB_DISABLE=1; NCCL_DEBUG=WARN names the link"
LARGEST_EXACT = 256  # every whole number up to it is exact in bfloat16


def reduction_proof(ranks: Ranks, dtype: torch.dtype, *, repeats: int = 1) -> Check:
    """Sums a vector over all ranks; must be called by all of them.

    Rank r gives 1 everywhere and 2 at place r, so each of the `world_size * repeats` sums is world_size + 1, exactly.
    """
    world, name = ranks.world_size, "all-reduce"
    if world == 1:
        return Check(name, "skipped", "one rank has nobody to sum with")
    kind = dtype if world < LARGEST_EXACT else torch.float32
    given = torch.ones(world, dtype=kind, device=ranks.device)
    given[ranks.rank] = 2
    found = summed(given.repeat(repeats), ranks).float()
    wrong = int((found != world + 1).sum())
    said = f"{len(found)} sums over {world} ranks, exact in {dtype_name(kind)}"
    if wrong == 0:
        return Check(name, "passed", said)
    return Check(name, "failed", f"{said}: {wrong} are wrong, one is {float(found[found != world + 1][0]):g}", FIX)
