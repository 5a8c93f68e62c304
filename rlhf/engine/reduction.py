"""A sum over the ranks by the collective that gradients take."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from rlhf.engine.ranks import Ranks


def summed(values: Tensor, ranks: Ranks) -> Tensor:
    """The sum of `values` over all ranks, in their dtype and on their device; called by every rank with one shape."""
    total = values.clone()
    if ranks.world_size > 1:
        dist.all_reduce(total)
    return total
