"""How many processes train the demo's stages."""

from __future__ import annotations

import os

MOST_RANKS = 8  # the smallest batch of a stage


def demo_ranks() -> int | None:
    """Processes per stage: None on GPUs, one per card then; on CPUs one per core, a power of two of at most 8.

    The demo's matrices are so small that two processes of one thread are faster than one process of two.
    """
    import torch

    if torch.cuda.is_available():
        return None
    cores = len(os.sched_getaffinity(0))
    return min(MOST_RANKS, 1 << (cores.bit_length() - 1))
