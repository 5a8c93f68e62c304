"""How many answers are decoded together, what their cache takes, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rlhf.engine.memory import free_memory
from rlhf.errors import ModelError

CPU_SLOTS = 64  # also the size of batches of work whose device is not known
LEAST_SLOTS, MOST_SLOTS = 8, 256
SHARE_OF_FREE = 0.5  # of the free memory of a GPU, for the cache of a default batch
COLUMN_BUCKET = 256


@dataclass(frozen=True, slots=True)
class CacheBuckets:
    """The shapes that a cache may have. On a GPU they are few, so that one decode step serves many: a captured graph
    has one shape, and kernels are chosen by shape. On a CPU each shape is as small as it can be.
    """

    fixed: bool

    @classmethod
    def of(cls, device: torch.device) -> CacheBuckets:
        return cls(fixed=device.type != "cpu")

    def slots(self, count: int) -> int:
        """Slots that are allocated for `count` answers: the next power of two."""
        return 1 << (count - 1).bit_length() if self.fixed else count

    def columns(self, count: int) -> int:
        """Columns that are allocated for `count` tokens per answer: the next multiple of 256."""
        return -(-count // COLUMN_BUCKET) * COLUMN_BUCKET if self.fixed else count


def default_slots(device: torch.device, bytes_per_slot: int) -> int:
    """Answers decoded together where the configuration leaves it open (`sampling.batch_size` null).

    On a GPU as many as half of the free memory holds, a power of two from 8 to 256; which ones are decoded together
    does not change an answer.
    """
    if device.type == "cpu":
        return CPU_SLOTS
    fitting = int(SHARE_OF_FREE * free_memory(device) / bytes_per_slot)
    return max(LEAST_SLOTS, min(MOST_SLOTS, 1 << max(fitting, 1).bit_length() - 1))


def planned_slots(batch_size: int | None, num_answers: int, *, on_gpu: bool) -> int:
    """Slots a run needs at least: an open batch is as small as free memory asks for."""
    return min(num_answers, batch_size or (LEAST_SLOTS if on_gpu else CPU_SLOTS))


def slots_for(model: Any, batch_size: int | None, *, num_answers: int, columns: int) -> int:
    """Slots for answers of `columns` tokens with their prompts.

    Raises: ModelError when their keys and values cannot fit into free memory.
    """
    device = next(model.parameters()).device
    buckets = CacheBuckets.of(device)
    per_slot = buckets.columns(columns) * column_bytes(model)
    slots = min(num_answers, batch_size or default_slots(device, per_slot))
    needed, free = buckets.slots(slots) * per_slot, free_memory(device)
    if needed > free:
        raise ModelError(
            f"keys and values of {slots} answers of {columns} tokens take {needed / 2**30:.1f} GiB, "
            f"and {free / 2**30:.1f} GiB are free",
            where="sampling.batch_size",
            fix=f"lower it to {max(1, int(free / per_slot))} or less",
        )
    return slots


def column_bytes(model: Any) -> int:
    """Bytes that one token's keys and values take in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * heads * size * config.num_hidden_layers * next(model.parameters()).element_size())


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
