"""Bytes of saved activations, of the head's logits, and of the KV cache of a rollout."""

from __future__ import annotations

from rlhf.config.sections import LanguageModelSection, ModelSection
from rlhf.ops.head_chunks import CHUNK_LOGITS
from rlhf.ops.linear_logprobs import KEPT
from rlhf.plan.machine import Device
from rlhf.plan.shapes import ModelShape

STATISTIC = 4  # float32: a norm's mean or deviation, an attention row's log-sum-exp


def layer_bytes(shape: ModelShape, model: ModelSection, element: int, *, tree: bool = False) -> float:
    """Bytes of activations per token and layer, as autograd saves them.

    Always: the residual stream, query, key and value, query and key after their rotation, the attention's output, and
    what the activation reads. For a linear layer that is trained, or has an adapter: its input. The answers of a
    tree attend to a copy of keys and values.
    """
    attended, shared = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    kept, inputs = _kept(shape, attended, shared), _inputs(shape, attended)
    kept += 2 * attended if tree else 0
    if model.lora is None:
        kept += sum({name: size for names, size in inputs for name in names[:1]}.values())
        return kept * element + _statistics(shape)
    adapted = shape.adapted(model.lora.targets)
    if model.lora.dropout:  # each adapter reads its own copy after dropout, and keeps the mask
        kept += sum(2 * given for given, _ in adapted.values())
    else:
        kept += sum(size for names, size in inputs if any(name in adapted for name in names))
    if shape.gated:  # a frozen norm does not keep what it scales
        kept -= 2 * shape.width
    return (kept + model.lora.rank * len(adapted)) * element + _statistics(shape)


def _kept(shape: ModelShape, attended: int, shared: int) -> float:
    """Entries per token that are kept whatever is trained."""
    if not shape.gated:  # one residual, fused query-key-value, its rotated halves, attention's output, before GELU
        rotated = 0 if shape.positions else 2 * attended
        stream = 2 * shape.width if shape.positions else shape.width
        return stream + attended + 2 * shared + rotated + attended + shape.inner
    # two residuals and two normalised ones; rotated query, and key and value for every head; output; gate, its SiLU, up
    return 4 * shape.width + 3 * attended + attended + 3 * shape.inner


def _inputs(shape: ModelShape, attended: int) -> list[tuple[tuple[str, ...], int]]:
    """Entries of the inputs of linear layers, by the layers that share an input."""
    if shape.gated:
        return [
            (("q_proj", "k_proj", "v_proj"), shape.width),
            (("o_proj",), attended),
            (("gate_proj", "up_proj"), shape.width),
            (("down_proj",), shape.inner),
        ]
    first, second, third, fourth = shape.linears
    return [((first,), shape.width), ((second,), attended), ((third,), shape.width), ((fourth,), shape.inner)]


def _statistics(shape: ModelShape) -> int:
    norms = 2 if shape.gated else 4
    return STATISTIC * (norms + shape.heads)


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
    attended = shape.heads * shape.head_size
    widest = 2 * shape.inner if not shape.gated else 3 * shape.inner
    layer = (3 * shape.width + max(7 * attended, widest)) * element * tokens
    if shape.scalar or kind == "score":
        return layer
    return layer + _logits(shape, element, tokens, device, kept=False)


def dequantized_bytes(shape: ModelShape, model: ModelSection, element: int) -> float:
    """The largest 4-bit matrix, dequantised for its product."""
    if model.quantize == "none":
        return 0.0
    return float(max(given * out for given, out in shape.linears.values()) * element)


def cache_bytes(shape: ModelShape, element: int, slots: int, columns: int) -> float:
    """Keys and values of `slots` answers of `columns` tokens, prompt included."""
    return 2.0 * shape.layers * shape.kv_heads * shape.head_size * element * slots * columns


def drawing_bytes(shape: ModelShape, slots: int) -> float:
    """Float32 logits of the next token, their softmax and its sum."""
    return 3.0 * 4 * slots * shape.vocabulary
