"""Keys and values of the answers being decoded: one slot per answer, all newest tokens in one column.

Slots are right-aligned, so that a decode step writes one column of allocated memory, whatever the lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from rlhf.data.transfer import moved


def cache_argument(model: Any) -> str:
    """Name under which the model's forward takes a cache: `cache` where it has that argument, else `past_key_values`.

    transformers 5.24 introduces `cache` and warns about the other name; earlier releases have `past_key_values` alone.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's own forward has no names
    return "cache" if "cache" in signature(base.forward).parameters else "past_key_values"


class SlotLayer(CacheLayerMixin):
    """One layer: keys and values [slots, heads, columns, size], filled up to `length`.

    Args:
        column: the next column to write [1] int64, on the device, where every step must be the same to the device: then
            all columns are returned, of which the mask hides those without a token. None: the written ones, as a view.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int, column: Tensor | None = None) -> None:
        super().__init__()
        self.keys, self.values, self.length, self._column = keys, values, length, column
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise AssertionError("a slot layer is created with its memory")

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends the newest token's key and value [slots, heads, 1, size]; returns all keys and values."""
        assert self.keys is not None
        assert self.values is not None
        if self._column is not None:
            self.keys.index_copy_(2, self._column, key_states)
            self.values.index_copy_(2, self._column, value_states)
            return self.keys, self.values
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        assert self.keys is not None
        return self.keys.shape[2]


class PromptLayer(CacheLayerMixin):
    """One layer's keys and values [1, heads, tokens, size] of a row of prompts, which one forward pass writes."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values = key_states, value_states
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """All layers of `SlotLayer`, and the mask [slots, columns] of the columns each slot may see.

    Args:
        column: as of `SlotLayer`; None writes and reads by slices.
    """

    def __init__(self, layers: list[SlotLayer], mask: Tensor, column: Tensor | None = None) -> None:
        super().__init__(layers=list(layers))
        self.slot_layers, self.mask, self.column = layers, mask, column

    @property
    def shape(self) -> tuple[int, int]:
        """Slots and columns."""
        return self.mask.shape[0], self.mask.shape[1]

    @property
    def length(self) -> int:
        """Columns written so far."""
        return self.slot_layers[0].length

    @property
    def room(self) -> int:
        """Columns that can still be written."""
        return self.shape[1] - self.length

    def next_mask(self) -> Tensor:
        """The mask of the next decode step, [slots, 1, 1, columns], with the new column visible to every slot."""
        if self.column is not None:
            self.mask.index_fill_(1, self.column, True)
            return self.mask[:, None, None, :]
        self.mask[:, self.length] = True
        return self.mask[:, None, None, : self.length + 1]

    def advance(self) -> None:
        """Counts the column that a step has written; `column` counts itself, on the device."""
        for layer in self.slot_layers:
            layer.length += 1


@dataclass(frozen=True, slots=True)
class Kept:
    """Slots of an earlier cache that stay: their numbers, and the tokens that each holds."""

    cache: SlotCache
    slots: Sequence[int]
    lengths: Sequence[int]


@dataclass(frozen=True, slots=True)
class Entering:
    """Prompts of new slots: keys and values of one packed row, and the columns of each slot's prompt there."""

    cache: Any
    spans: Sequence[tuple[int, int]]

    @property
    def lengths(self) -> list[int]:
        return [end - start for start, end in self.spans]


def rearranged(kept: Kept | None, entering: Entering | None, shape: tuple[int, int], *, fixed: bool) -> SlotCache:
    """A cache of the slots that stay, then one slot for each entering prompt, then empty ones.

    Args:
        shape: slots and columns to allocate.
        fixed: every step is the same to the device; the memory of the earlier cache is used again where it has this
            shape, so that addresses stay.
    """
    widths = [*(kept.lengths if kept else ()), *(entering.lengths if entering else ())]
    width = max(widths)
    again = kept.cache if fixed and kept is not None and kept.cache.shape == shape else None
    layers: list[tuple[Tensor, Tensor]] = []
    rows = None if kept is None or not kept.slots else moved(torch.tensor(kept.slots), _keys(kept.cache).device)
    for number in range(_num_layers(kept, entering)):
        keys, values = (_rearranged_memory(kept, entering, number, name, shape, rows) for name in ("keys", "values"))
        if again is not None:
            earlier: Any = again.layers[number]
            keys, values = earlier.keys.copy_(keys), earlier.values.copy_(values)
        elif kept is not None:  # freed at once: no second whole cache is held
            kept.cache.slot_layers[number].keys = kept.cache.slot_layers[number].values = None
        layers.append((keys, values))
    device = layers[0][0].device
    begins = moved(torch.tensor([*(width - each for each in widths), *[width] * (shape[0] - len(widths))]), device)
    columns = torch.arange(shape[1], device=device)
    mask = (columns >= begins[:, None]) & (columns < width)
    if again is not None and again.column is not None:
        return SlotCache(_slot_layers(layers, width, again.column), again.mask.copy_(mask), again.column.fill_(width))
    column = torch.full((1,), width, device=device) if fixed else None
    return SlotCache(_slot_layers(layers, width, column), mask, column)


def _slot_layers(memory: Sequence[tuple[Tensor, Tensor]], width: int, column: Tensor | None) -> list[SlotLayer]:
    return [SlotLayer(keys, values, width, column) for keys, values in memory]


def _keys(cache: Any) -> Tensor:
    keys: Tensor = cache.layers[0].keys
    return keys


def _num_layers(kept: Kept | None, entering: Entering | None) -> int:
    source = kept or entering
    assert source is not None
    return len(source.cache.layers)


def _rearranged_memory(
    kept: Kept | None, entering: Entering | None, number: int, name: str, shape: tuple[int, int], rows: Tensor | None
) -> Tensor:
    """Keys or values of one layer for the new arrangement; `rows` are the kept slots on the device."""
    source = kept or entering
    assert source is not None
    like: Any = getattr(source.cache.layers[number], name)
    memory: Tensor = like.new_zeros(shape[0], like.shape[1], shape[1], like.shape[3])
    lengths = [*(kept.lengths if kept else ()), *(entering.lengths if entering else ())]
    width, count = max(lengths), 0
    if kept is not None and rows is not None:
        count, longest, end = len(kept.slots), max(kept.lengths), kept.cache.length
        memory[:count, :, width - longest : width] = like[rows, :, end - longest : end]
    if entering is not None:
        packed: Any = getattr(entering.cache.layers[number], name)
        for slot, (start, stop) in enumerate(entering.spans, start=count):
            memory[slot, :, width - (stop - start) : width] = packed[0, :, start:stop]
    return memory


def enter(cache: SlotCache, slots: Sequence[int], entering: Entering) -> None:
    """Writes prompts into the slots of ended answers; none may be longer than the columns written so far."""
    for number, layer in enumerate(cache.layers):
        for name in ("keys", "values"):
            memory: Any = getattr(layer, name)
            packed: Any = getattr(entering.cache.layers[number], name)
            for slot, (start, end) in zip(slots, entering.spans, strict=True):
                memory[slot, :, cache.length - (end - start) : cache.length] = packed[0, :, start:end]
    for slot, (start, end) in zip(slots, entering.spans, strict=True):
        cache.mask[slot] = False
        cache.mask[slot, cache.length - (end - start) : cache.length] = True
