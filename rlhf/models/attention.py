"""Attention over packed rows, for every backend and architecture.

The functions are registered with transformers' attention interfaces, so any architecture with attention
backends works and no model code is copied. `Segments` travel as a keyword argument of `forward`, never as
state, so that recomputed activations see them too. Without segments (generation with a cache) the same names are
transformers' own SDPA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf.errors import ModelError
from rlhf.models.last_layer import KEY
from rlhf.ops.segments import Segment, Segments

PACKED_SDPA = "rlhf_packed_sdpa"
PACKED_VARLEN = "rlhf_packed_varlen"


def no_mask(device: torch.device | str) -> Tensor:
    """The attention mask to pass with segments: four-dimensional and empty.

    transformers passes a 4-D mask through unchanged, so no [T, T] mask is built.
    """
    return torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)


def _refuse_unsupported(segments: Segments, options: dict[str, Any]) -> None:
    """Raises ModelError for attention variants that packed attention would silently compute wrongly."""
    if options.get("softcap") is not None:
        raise ModelError("this architecture caps its attention scores, which packed attention cannot do")
    window = options.get("sliding_window")
    if window is not None and (longest := segments.longest) > window:
        raise ModelError(
            f"a sequence of {longest} tokens is longer than the model's sliding window of {window}",
            expected="sequences within the window: packed attention is causal over the whole sequence",
            fix=f"set data.max_length to {window} or less",
        )


def tree_masks(segments: Segments, device: torch.device, dtype: torch.dtype) -> list[Tensor | None]:
    """What is added to the scores of each segment, None for one without a prefix.

    [queries, prefix + queries]: 0 for all of the prefix and the segment itself causally, -inf elsewhere. Made once for
    a row and kept with its segments, as a `VarlenPlan` is; SDPA would turn booleans into these numbers at every layer.
    """
    key = (device, dtype)
    masks: list[Tensor | None] | None = segments.plans.get(key)
    if masks is None:
        masks = segments.plans[key] = [
            _tree_mask(span, device, dtype) if span.has_prefix else None for span in segments.spans
        ]
    return masks


def _tree_mask(span: Segment, device: torch.device, dtype: torch.dtype) -> Tensor:
    queries, prefix = span.end - span.start, span.prefix_end - span.prefix_start
    return torch.full((queries, prefix + queries), -torch.inf, dtype=dtype, device=device).triu(diagonal=prefix + 1)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float | None, dropout: float) -> Tensor:
    """One SDPA call per segment; runs on every device."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    # Split, not sliced: the backward of one split is one concatenation, that of a slice fills a row of zeros.
    lengths = [span.end - span.start for span in segments.spans]
    queries, keys, values = (each.split(lengths, dim=2) for each in (query, key, value))
    first = {span.start: number for number, span in enumerate(segments.spans)}
    pieces, masks = [], tree_masks(segments, query.device, query.dtype)
    for number, (span, mask) in enumerate(zip(segments.spans, masks, strict=True)):
        seen_keys, seen_values = keys[number], values[number]
        if span.has_prefix:
            prompt = first[span.prefix_start]
            seen_keys = torch.cat([keys[prompt], seen_keys], dim=2)
            seen_values = torch.cat([values[prompt], seen_values], dim=2)
        attended = scaled_dot_product_attention(
            queries[number], seen_keys, seen_values, mask, dropout, is_causal=mask is None, scale=scale
        )
        pieces.append(attended.transpose(1, 2))
    return torch.cat(pieces, dim=1)


def varlen_arguments() -> frozenset[str]:
    """Names of the arguments that torch's variable-length kernel takes; empty where torch has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(signature(varlen_attn).parameters)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float | None, dropout: float
) -> Tensor:
    """One variable-length flash kernel for the whole row (GPU, half precision; not measured here).

    A segment's keys are gathered as prefix + itself. The kernel's causal window is aligned to the
    last key, so every query sees the whole prefix and its own past, and trees need no kernel of their own.
    """
    if dropout:
        raise ModelError("the variable-length kernel has no attention dropout", fix="use model.attention=sdpa")
    from torch.nn.attention.varlen import varlen_attn

    plan = varlen_plan(segments, query.device)
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if plan.key_index is not None:
        key, value = key.index_select(0, plan.key_index), value.index_select(0, plan.key_index)
    grouped: dict[str, Any] = {}
    if (groups := query.shape[1] // key.shape[1]) > 1:
        if "enable_gqa" in varlen_arguments():
            grouped = {"enable_gqa": True}
        else:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    attended: Any = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        plan.query_bounds,
        plan.key_bounds,
        plan.longest_query,
        plan.longest_key,
        scale=scale,
        window_size=(-1, 0),
        **grouped,
    )
    return attended[None]


def _attention_function(kernel: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """A kernel over segments as an attention function of transformers.

    Shapes: query [1, H, T, D]; key, value [1, H_kv, T, D]; returns [1, T, H, D] and None.
    Raises: ModelError for a sliding window shorter than a sequence, or soft-capped scores.
    """

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        segments: Segments | None = None,
        read_positions: Tensor | None = None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if KEY in vars(module):
            vars(module)[KEY].attended(read_positions)
        if segments is None:
            options = {"scaling": scaling, "dropout": dropout, **kwargs}
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        _refuse_unsupported(segments, kwargs)
        return kernel(query, key, value, segments, scaling, dropout), None

    return attention


@dataclass(frozen=True, slots=True)
class VarlenPlan:
    """Bounds for a variable-length kernel, on the row's device, int32.

    query_bounds, key_bounds [S + 1]; key_index [sum of keys], None for a row without trees, whose keys lie in place.
    """

    query_bounds: Tensor
    key_bounds: Tensor
    key_index: Tensor | None
    longest_query: int
    longest_key: int


def varlen_plan(segments: Segments, device: torch.device) -> VarlenPlan:
    """Where each segment's queries and its keys (prefix, then itself) lie.

    Made once for a row and kept with its segments: all layers, recomputed ones too, read the same tensors.
    """
    plan: VarlenPlan | None = segments.plans.get(device)
    if plan is None:
        plan = segments.plans[device] = _new_plan(segments, device)
    return plan


def _new_plan(segments: Segments, device: torch.device) -> VarlenPlan:
    """The plan by one transfer from pinned memory: bounds and index are views of one tensor on the device."""
    query_bounds, key_bounds, index = [0], [0], []
    for span in segments.spans:
        index += [*range(span.prefix_start, span.prefix_end), *range(span.start, span.end)]
        query_bounds.append(span.end)
        key_bounds.append(len(index))
    longest = (max(b - a for a, b in pairwise(bounds)) for bounds in (query_bounds, key_bounds))
    parts = [query_bounds, key_bounds, index if segments.has_trees else []]
    sizes = [len(part) for part in parts]
    whole = torch.empty(sum(sizes), dtype=torch.int32, pin_memory=device.type != "cpu")
    whole.copy_(torch.tensor([*chain(*parts)], dtype=torch.int32))
    on_queries, on_keys, place = whole.to(device, non_blocking=True).split(sizes)
    return VarlenPlan(on_queries, on_keys, place if segments.has_trees else None, *longest)


packed_sdpa, packed_varlen = _attention_function(_sdpa), _attention_function(_varlen)
for _name, _function in ((PACKED_SDPA, packed_sdpa), (PACKED_VARLEN, packed_varlen)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, sdpa_mask)
