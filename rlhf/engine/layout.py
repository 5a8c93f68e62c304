"""Where the optimizer of an engine keeps each parameter, by name, for any number of ranks and ZeRO stage.

An optimizer under DeepSpeed holds flat tensors, many parameters in each. ZeRO 0 keeps them whole on every rank, ZeRO 1
and 2 split each flat tensor into equal parts, ZeRO 3 splits each parameter and keeps the parts in flat tensors.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Slot:
    """A parameter in a flat tensor, from element `start` on (at ZeRO 3: where its part starts, on each rank)."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class FlatTensor:
    """A flat tensor: `size` elements on each rank, and the parameters in it."""

    size: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class ShardSlice:
    """`count` elements that a rank holds: those of the parameter from `begin` on, at `place` of the rank's tensor."""

    place: int
    begin: int
    count: int


@dataclass(frozen=True, slots=True)
class Layout:
    """All flat tensors of an engine, in the order of its optimizer, and the names of averaged parameters."""

    zero_stage: int
    world_size: int
    dtype: str
    flats: tuple[FlatTensor, ...]
    averaged: tuple[str, ...] = ()

    def piece(self, flat: FlatTensor, slot: Slot, rank: int) -> ShardSlice:
        """The elements of a parameter that `rank` holds; their count may be 0."""
        if self.zero_stage == 0:
            return ShardSlice(slot.start, 0, slot.size)
        if self.zero_stage == 3:
            part = -(-slot.size // self.world_size)
            return ShardSlice(slot.start, rank * part, max(0, min(part, slot.size - rank * part)))
        low, high = rank * flat.size, (rank + 1) * flat.size
        first, last = max(slot.start, low), min(slot.start + slot.size, high)
        return ShardSlice(first - low, first - slot.start, max(0, last - first))

    @property
    def num_shards(self) -> int:
        """Number of ranks whose state differs."""
        return self.world_size if self.zero_stage else 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {slot.name: slot.shape for flat in self.flats for slot in flat.slots}

    def __str__(self) -> str:
        ranks = "1 rank" if self.world_size == 1 else f"{self.world_size} ranks"
        return f"{ranks} at ZeRO {self.zero_stage} in {self.dtype}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Layout:
        flats = []
        for flat in value["flats"]:
            slots = tuple(Slot(each["name"], tuple(each["shape"]), each["start"]) for each in flat["slots"])
            flats.append(FlatTensor(flat["size"], slots))
        return cls(**{**value, "flats": tuple(flats), "averaged": tuple(value["averaged"])})
