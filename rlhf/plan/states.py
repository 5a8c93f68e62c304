"""Bytes of weights, gradients and optimizer state of a rank, as this project's engines and DeepSpeed 0.19 keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf.config.sections import DeepSpeedSection, ModelSection
from rlhf.engine.zero_config import REDUCE_BUCKET
from rlhf.plan.host import SUB_GROUP, offloaded_bytes, partitioned_bytes
from rlhf.plan.machine import Device
from rlhf.plan.moments import Matrices, moment_bytes, trained_matrices, update_bytes
from rlhf.plan.shapes import ModelShape

ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
MASTER = 4  # a float32 copy of the weight
LIVE, PREFETCH = 1e9, 5e7  # DeepSpeed's defaults, in entries
# nf4: half a byte; a byte of scale for 64 weights, and 4 bytes for 256 such scales (bitsandbytes, double quantisation)
FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class Placement:
    """Where a model is trained: number of ranks, their kind, and the type of arithmetic.

    card: bytes of one GPU, of which an engine beside the trainer takes a share; 0 where it is not known.
    """

    world_size: int
    device: Device
    dtype: str
    card: float = 0.0

    @property
    def element(self) -> int:
        """Bytes per number."""
        return ELEMENT[self.dtype]


@dataclass(frozen=True)
class States:
    """Bytes of one rank. Resident through the run: weights, adapters, master (float32 copy), moments, average.

    gradients: from a backward pass to the step; reduction: DeepSpeed's buffers while gradients are exchanged, bucket
    the part of them that is allocated at once; step: further buffers of the update; gathered: whole weights that ZeRO 3
    brings together; host: offloaded to CPU memory.
    """

    weights: float = 0.0
    adapters: float = 0.0
    master: float = 0.0
    moments: float = 0.0
    average: float = 0.0
    gradients: float = 0.0
    reduction: float = 0.0
    bucket: float = 0.0
    step: float = 0.0
    gathered: float = 0.0
    host: float = 0.0


def frozen_bytes(shape: ModelShape, model: ModelSection, element: int) -> float:
    """Bytes of all weights; in four bits the matrices of layers are, and nothing else."""
    if model.quantize == "none":
        return shape.parameters * element
    packed = shape.layers * shape.linear_weights
    return packed * FOUR_BITS + (shape.parameters - packed) * element


def trained_parameters(shape: ModelShape, model: ModelSection) -> int:
    """Trained parameters: all, or adapters and the one-number head."""
    if model.lora is None:
        return shape.parameters
    adapters = shape.adapter_parameters(model.lora.rank, model.lora.targets)
    return adapters + (shape.head if shape.scalar else 0)


def setting(section: DeepSpeedSection, name: str, default: float) -> float:
    """A number of DeepSpeed's zero_optimization, as deepspeed.overrides leaves it."""
    found: Any = section.overrides.get("zero_optimization", {})
    value = found.get(name, default) if isinstance(found, dict) else default
    return float(value) if isinstance(value, int | float) else default


def inference_states(
    shape: ModelShape, model: ModelSection, section: DeepSpeedSection, placement: Placement, *, offload: bool
) -> States:
    """A frozen model: whole below ZeRO 3, a part of it there."""
    whole = frozen_bytes(shape, model, placement.element)
    if section.zero_stage < 3:
        return States(weights=whole)
    part = whole / placement.world_size
    parked = placement.device == "gpu" and (offload or section.offload_parameters)
    gathered = _live(shape, section) * placement.element
    beside = partitioned_bytes(part / placement.element, placement.element) if parked else 0
    return States(weights=0 if parked else part, gathered=gathered, host=beside)


def trained_states(
    shape: ModelShape,
    model: ModelSection,
    section: DeepSpeedSection,
    placement: Placement,
    *,
    average: bool = False,
    optimizer: str = "adamw",
) -> States:
    trained, element = trained_parameters(shape, model), placement.element
    adapters = trained * element if model.lora is not None else 0.0
    whole = frozen_bytes(shape, model, element)
    return engine_states(
        shape,
        section,
        placement,
        whole=whole,
        adapters=adapters,
        trained=trained,
        average=average,
        optimizer=optimizer,
        matrices=trained_matrices(shape, model),
    )


def engine_states(
    shape: ModelShape,
    section: DeepSpeedSection,
    placement: Placement,
    *,
    whole: float,
    adapters: float,
    trained: float,
    average: bool,
    optimizer: str,
    matrices: Matrices,
) -> States:
    """Everything one engine holds on a rank.

    ZeRO 0 holds everything on every rank. In half precision DeepSpeed keeps float32 masters, and makes float32
    gradients of them all at the step; in float32 the weights are the masters. From ZeRO 1 on a rank holds masters and
    moments of its part, also in float32; at ZeRO 3 a part of everything, and layers are gathered to be used.

    Args:
        whole: bytes of all weights.
        adapters: bytes of adapters beside them.
        trained: number of trained parameters.
        average: whether a float32 running average of these is kept.
        optimizer: its name in the configuration.
        matrices: the trained parameters of two dimensions.
    """
    stage, element, on_gpu = section.zero_stage, placement.element, placement.device == "gpu"
    half = element == 2
    part = trained / placement.world_size if stage else trained
    held = placement.world_size if stage == 3 else 1  # ranks that share weights and averages
    offloaded = stage > 0 and section.offload_optimizer and on_gpu
    parked = stage == 3 and section.offload_parameters and on_gpu
    kept = 0 if offloaded else part
    buckets, reduction = _communication(section, placement, trained)
    step = 4 * kept if half or stage else 0
    if stage == 3:  # a flat copy of the gradients too, of one sub-group at a time
        step = (4 + (element if half else 0)) * min(kept, SUB_GROUP)
    return States(
        weights=0 if parked else whole / held,
        adapters=adapters / held,
        master=MASTER * kept if half or stage else 0,
        moments=0 if offloaded else moment_bytes(optimizer, trained, part, matrices, flat=stage > 0),
        average=4.0 * trained / held if average else 0.0,
        gradients=element * kept,
        reduction=reduction,
        bucket=buckets,
        step=step + update_bytes(optimizer, matrices),
        gathered=_live(shape, section) * element if stage == 3 else 0,
        host=(offloaded_bytes(part, element, stage=stage) if offloaded else 0)
        + (partitioned_bytes(whole / held / element, element) if parked else 0),
    )


def _communication(section: DeepSpeedSection, placement: Placement, trained: float) -> tuple[float, float]:
    """Bytes of the buckets that gradients pass through, and of these with the gradients that are sent.

    A GPU allocates buckets whole, and two of them at ZeRO 2, where communication overlaps. ZeRO 0 has none: it flattens
    gradients to exchange them.
    """
    element = placement.element
    if section.zero_stage == 0:
        exchanged = placement.world_size > 1 or element == 2
        return 0.0, element * min(trained, REDUCE_BUCKET) if exchanged else 0
    size = setting(section, "reduce_bucket_size", min(trained, REDUCE_BUCKET))
    filled = min(trained, size)
    buckets = size * (2 if section.zero_stage == 2 else 1) if placement.device == "gpu" else filled
    return element * buckets, element * (buckets + filled)


def _live(shape: ModelShape, section: DeepSpeedSection) -> float:
    """Entries that ZeRO 3 holds gathered: a model that is soon read again stays whole up to this many."""
    most = setting(section, "stage3_max_live_parameters", LIVE) + setting(
        section, "stage3_prefetch_bucket_size", PREFETCH
    )
    return float(min(shape.parameters, max(most, shape.layer_parameters, shape.embedding)))
