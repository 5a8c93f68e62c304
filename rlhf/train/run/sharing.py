"""Inference over many items, shared among ranks: each rank reads its own micro-batches, and all get all results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rlhf.data.packing import plan_micro_batches
from rlhf.engine.ranks import Ranks

Result = TypeVar("Result")


def read_shared(
    lengths: Sequence[int], micro_tokens: int, ranks: Ranks, read: Callable[[list[int]], Iterable[Result]]
) -> list[Result]:
    """One result per item, in order and on every rank.

    `read` is called once per micro-batch with its item numbers, and gives a result for each of them. Every rank calls
    it equally often: with no items for an idle row, whose result is ignored.

    Raises: DataError when an item alone is longer than `micro_tokens`.
    """
    found: dict[int, Result] = {}
    for items in plan_micro_batches(lengths, micro_tokens, ranks.world_size)[ranks.rank]:
        found |= dict(zip(items, read(items), strict=bool(items)))
    merged = {item: result for part in ranks.gather(found) for item, result in part.items()}
    return [merged[item] for item in range(len(lengths))]
