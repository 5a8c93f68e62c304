"""Keys and values of the answers being decoded: one slot per answer, all newest tokens in one column.

Slots are right-aligned, so that a decode step writes one column of allocated memory, whatever the lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from rlhf.engine.memory import free_memory
from rlhf.errors import ModelError


class SlotLayer(CacheLayerMixin):
    """One layer: keys and values [slots, heads, columns, size], filled up to `length`."""

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()
        self.keys, self.values, self.length = keys, values, length
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise AssertionError("a slot layer is created with its memory")

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends the newest token's key and value [slots, heads, 1, size]; returns all keys and values."""
        assert self.keys is not None
        assert self.values is not None
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        assert self.keys is not None
        return self.keys.shape[2]


class SlotCache(Cache):
    """All layers of `SlotLayer`, and the mask [slots, columns] of the columns each slot may see."""

    def __init__(self, layers: list[SlotLayer], mask: Tensor) -> None:
        super().__init__(layers=list(layers))
        self.mask = mask

    @property
    def length(self) -> int:
        """Columns written so far."""
        newest: Any = self.layers[0]
        return int(newest.length)

    @property
    def room(self) -> int:
        """Columns that can still be written."""
        return int(self.mask.shape[1]) - self.length

    def next_mask(self) -> Tensor:
        """The mask of the next decode step, [slots, 1, 1, columns], with the new column visible to every slot."""
        self.mask[:, self.length] = True
        return self.mask[:, None, None, : self.length + 1]


def rearranged(
    old: SlotCache | None,
    keep: Sequence[int],
    lengths: Sequence[int],
    prefilled: Cache | None,
    spans: Sequence[tuple[int, int]],
    room: int,
) -> SlotCache:
    """A cache of the slots `keep` of `old` (their tokens in `lengths`), then one slot for each span of `prefilled`.

    Args:
        prefilled: keys and values of one packed row of prompts; `spans` are the columns of each new slot's prompt,
            the same one for every answer to a prompt.
        room: columns for further tokens.
    """
    widths = [*lengths, *(end - start for start, end in spans)]
    width, count = max(widths), len(keep)
    sources = [each for each in (old, prefilled) if each is not None]
    layers = []
    for number in range(len(sources[0].layers)):
        pair = []
        for name in ("keys", "values"):
            like: Any = getattr(sources[0].layers[number], name)
            memory = like.new_zeros(len(widths), like.shape[1], width + room, like.shape[3])
            if old is not None and count:
                kept: Any = getattr(old.layers[number], name)
                longest = max(lengths)
                rows = torch.as_tensor(keep, device=kept.device)
                memory[:count, :, width - longest : width] = kept[rows, :, old.length - longest : old.length]
                setattr(old.layers[number], name, None)  # freed at once, so that no second whole cache is held
            if prefilled is not None:
                packed: Any = getattr(prefilled.layers[number], name)
                for slot, (start, end) in enumerate(spans, start=count):
                    memory[slot, :, width - (end - start) : width] = packed[0, :, start:end]
            pair.append(memory)
        layers.append(SlotLayer(pair[0], pair[1], width))
    device = layers[0].keys.device  # type: ignore[union-attr]
    columns = torch.arange(width + room, device=device)
    begins = width - torch.as_tensor(widths, device=device)
    return SlotCache(layers, (columns >= begins[:, None]) & (columns < width))


def enter(cache: SlotCache, slots: Sequence[int], prefilled: Any, spans: Sequence[tuple[int, int]]) -> None:
    """Writes prompts into the slots of ended answers; none may be longer than the columns written so far.

    Args:
        prefilled, spans: as in `rearranged`.
    """
    for number, layer in enumerate(cache.layers):
        for name in ("keys", "values"):
            memory: Any = getattr(layer, name)
            packed: Any = getattr(prefilled.layers[number], name)
            for slot, (start, end) in zip(slots, spans, strict=True):
                memory[slot, :, cache.length - (end - start) : cache.length] = packed[0, :, start:end]
    for slot, (start, end) in zip(slots, spans, strict=True):
        cache.mask[slot] = False
        cache.mask[slot, cache.length - (end - start) : cache.length] = True


def check_cacheable(model: Any, longest: int) -> None:
    """Raises ModelError for an architecture whose layers cache anything but all keys and values."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if unknown := kinds - {"full_attention", "sliding_attention"}:
        raise ModelError(
            f"layers of kind {', '.join(sorted(unknown))} are not supported by the transformers rollout",
            fix="use a model of attention layers, or rollout.backend=vllm",
        )
    window = getattr(config, "sliding_window", None)
    if window is not None and longest > window:
        raise ModelError(
            f"prompt and answer of {longest} tokens are longer than the model's sliding window of {window}",
            fix=f"keep sampling.max_prompt_tokens + sampling.max_new_tokens within {window}",
        )


def check_memory(model: Any, slots: int, columns: int) -> None:
    """Raises ModelError when keys and values of `slots` answers of `columns` tokens cannot fit into free memory."""
    needed = slots * columns * column_bytes(model)
    free = free_memory(next(model.parameters()).device)
    if needed > free:
        raise ModelError(
            f"keys and values of {slots} answers of {columns} tokens take {needed / 2**30:.1f} GiB, "
            f"and {free / 2**30:.1f} GiB are free",
            where="sampling.batch_size",
            fix=f"lower it to {max(1, int(slots * free / needed))} or less",
        )


def column_bytes(model: Any) -> int:
    """Bytes that one token's keys and values take in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * heads * size * config.num_hidden_layers * next(model.parameters()).element_size())
