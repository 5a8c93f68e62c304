"""CPU memory beside a GPU: what ZeRO-offload and parked roles keep there, and what loading passes through it.

Page-locked memory comes from torch's allocator, which rounds each block up to a power of two.
Source: torch, ATen/core/CachingHostAllocator.h; DeepSpeed 0.19, stage_1_and_2.py and stage3.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from rlhf.plan.shapes import ModelShape

SUB_GROUP = 1e9  # DeepSpeed's default at ZeRO 3, in entries
MASTER, GRADIENT, MOMENTS = 4, 4, 8  # float32


def pinned(size: float) -> float:
    """Bytes that a page-locked block of `size` bytes takes."""
    return float(1 << math.ceil(math.log2(size))) if size >= 1 else 0.0


def offloaded_bytes(trained: float, element: int, *, stage: int) -> float:
    """Bytes of one rank's part of `trained` numbers whose optimizer is in CPU memory.

    Page-locked: masters and float32 gradients, flat (ZeRO 3: a sub-group at a time); gradients in the model's type;
    below ZeRO 3 a buffer that updated weights return through. Not page-locked: Adam's moments.
    """
    flats = [trained] if stage < 3 else _sub_groups(trained)
    optimizer = sum(pinned(MASTER * each) + pinned(GRADIENT * each) for each in flats)
    copies = 2 if stage < 3 else 1
    return optimizer + copies * pinned(element * trained) + MOMENTS * trained


def parked_bytes(shape: ModelShape, element: int) -> float:
    """Bytes of a frozen model of which each weight is a page-locked block of its own."""
    return sum(count * pinned(size * element) for size, count in _weights(shape))


def partitioned_bytes(entries: float, element: int) -> float:
    """Bytes of a rank's part of weights that ZeRO 3 keeps page-locked in CPU memory, flat, a sub-group at a time."""
    return sum(pinned(element * each) for each in _sub_groups(entries))


def _sub_groups(entries: float) -> list[float]:
    return [SUB_GROUP] * int(entries // SUB_GROUP) + [entries % SUB_GROUP]


def _weights(shape: ModelShape) -> Iterable[tuple[float, int]]:
    """Sizes of the matrices and how many there are; what is left, norms and biases, as one block."""
    matrices = [(float(given * out), shape.layers) for given, out in shape.linears.values()]
    matrices += [(float(size), 1) for size in (shape.embedding, shape.head) if size]
    rest = shape.parameters - sum(size * count for size, count in matrices)
    return [*matrices, (max(0.0, rest), 1)]
