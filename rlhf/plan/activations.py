"""Bytes of saved activations, of the head's logits, and of the KV cache of a rollout."""

from __future__ import annotations

from rlhf.config.sections import LanguageModelSection, ModelSection
from rlhf.ops.head_chunks import CHUNK_LOGITS
from rlhf.ops.linear_logprobs import KEPT
from rlhf.plan.machine import Device
from rlhf.plan.shapes import ModelShape

WIDE = 4  # bytes of float32
STATISTIC = 4  # float32: a norm's mean or deviation, an attention row's log-sum-exp

SHARED_INPUTS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))  # gated layers


def layer_bytes(shape: ModelShape, model: ModelSection, element: int, *, tree: bool = False) -> float:
    """Bytes of activations per token and layer, as autograd saves them.

    Always: the residual stream, query, key and value, query and key after their rotation, the attention's output, and
    what the activation reads. For a linear layer that is trained, or has an adapter: its input. The answers of a
    tree attend to a copy of keys and values.
    """
    groups = SHARED_INPUTS if shape.gated else tuple((name,) for name in shape.linears)
    kept = _kept(shape) + (2 * shape.attended if tree else 0)
    num_norms = (shape.heads + shape.kv_heads) * shape.head_norms + (shape.norms if shape.gated else 4)
    statistics = STATISTIC * (num_norms + shape.heads)
    if shape.gated:  # RMS norms read float32, and those of Gemma scale it
        scaled = 1 if shape.wide_norms and model.lora is None else 0
        statistics += (1 + scaled) * shape.normalised * (WIDE - element)
    if model.lora is None:
        return (kept + sum(shape.linears[names[0]][0] for names in groups)) * element + statistics
    adapted = shape.adapted(model.lora.targets)
    if model.lora.dropout:  # each adapter reads its own copy after dropout, and keeps the mask
        kept += sum(2 * given for given, _ in adapted.values())
    else:
        kept += sum(shape.linears[names[0]][0] for names in groups if any(name in adapted for name in names))
    if shape.gated:  # a frozen norm does not keep what it scales
        kept -= shape.normalised
    return (kept + model.lora.rank * len(adapted)) * element + statistics


def _kept(shape: ModelShape) -> float:
    """Entries per token that are kept whatever is trained."""
    attended = shape.attended
    if shape.gated:
        # what each norm reads and what it scales; rotated query, key, value of each head; output; gate, SiLU, up
        return 2 * shape.normalised + 3 * attended + attended + 3 * shape.inner
    # one residual (and learned positions), fused query-key-value, its rotated halves, attention's output, before GELU
    stream, rotated = (2 * shape.width, 0) if shape.positions else (shape.width, 2 * attended)
    return stream + attended + 2 * shape.shared + rotated + attended + shape.inner


def training_bytes(
    shape: ModelShape, model: ModelSection, element: int, tokens: int, *, tree: bool = False
) -> dict[str, float]:
    """Activations of one packed row: those kept, and the working memory of a layer's backward pass.

    With gradient checkpointing a layer keeps its input alone, and one layer at a time is recomputed.
    """
    per_layer = layer_bytes(shape, model, element, tree=tree) * tokens
    outside = 2 * shape.width * element * tokens  # before and after the last norm
    working = (2 * shape.inner + 2 * shape.width) * element * tokens
    if model.lora is not None:
        working += max(3 * out for _, out in shape.linears.values()) * element * tokens
    if model.gradient_checkpointing:
        kept = shape.layers * shape.width * element * tokens + outside
        return {"activations": kept, "one layer recomputed": per_layer + working}
    return {"activations": shape.layers * per_layer + outside, "one layer recomputed": working}


def head_bytes(
    shape: ModelShape, model: ModelSection, element: int, positions: int, device: Device, *, kind: str
) -> float:
    """Bytes of the head and its loss at `positions` tokens.

    kind: loss (cross-entropy in chunks), logprobs (probabilities kept up to a limit), or score (one number).
    """
    around = 2 * positions * shape.width * element  # the input of the head, and its gradient
    if shape.scalar or kind == "score":
        return around
    learns = model.lora is None
    of_weight = shape.embedding * (4 + (element if element == 2 else 0)) if learns else 0
    if kind == "loss" and isinstance(model, LanguageModelSection) and model.head == "whole":
        return around + positions * shape.vocabulary * (2 * element + 8)
    return around + of_weight + _logits(shape, element, positions, device, kept=kind == "logprobs")


def _logits(shape: ModelShape, element: int, positions: int, device: Device, *, kept: bool) -> float:
    name = "cuda" if device == "gpu" else "cpu"
    chunk = min(positions, max(1, CHUNK_LOGITS[name] // shape.vocabulary)) * shape.vocabulary
    held = positions * shape.vocabulary if kept and positions * shape.vocabulary <= KEPT[name] else 0
    return chunk * (4 + (2 * element if element == 2 else 0)) + held * 4


def inference_bytes(
    shape: ModelShape, model: ModelSection, element: int, tokens: int, device: Device, *, kind: str
) -> float:
    """Bytes of a forward pass without a graph: one layer at a time, and a chunk of the head."""
    widest = 3 * shape.inner if shape.gated else 2 * shape.inner
    layer = (3 * shape.width + max(7 * shape.attended, widest)) * element * tokens
    if shape.scalar or kind == "score":
        return layer
    return layer + _logits(shape, element, tokens, device, kept=False)


def cache_bytes(shape: ModelShape, element: int, slots: int, columns: int) -> float:
    """Keys and values of `slots` answers of `columns` tokens, prompt included."""
    return 2.0 * shape.layers * shape.shared * element * slots * columns
