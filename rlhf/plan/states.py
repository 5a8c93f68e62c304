"""Bytes of weights, gradients and optimizer state of a rank, as this project's engines and DeepSpeed 0.19 keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf.config.sections import DeepSpeedSection, ModelSection
from rlhf.plan.machine import Device
from rlhf.plan.shapes import ModelShape

ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
MASTER, MOMENTS = 4, 8  # float32: a copy of the weight; Adam's two moments
BUCKET, SUB_GROUP, LIVE, PREFETCH = 5e8, 1e9, 1e9, 5e7  # DeepSpeed's defaults, in entries
# nf4: half a byte; a byte of scale for 64 weights, and 4 bytes for 256 such scales (bitsandbytes, double quantisation)
FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class Placement:
    """Where a model is trained: number of ranks, their kind, and the type of arithmetic."""

    world_size: int
    device: Device
    dtype: str

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
    return States(weights=0 if parked else part, gathered=gathered, host=part if parked else 0)


@dataclass(frozen=True)
class EngineSizes:
    """Bytes of weights and of adapters beside them, number of trained parameters, and whether they are averaged."""

    whole: float
    adapters: float
    trained: float
    averaged: bool

    @property
    def average(self) -> float:
        """Bytes of the running average, which is float32."""
        return 4.0 * self.trained if self.averaged else 0.0


def trained_states(
    shape: ModelShape, model: ModelSection, section: DeepSpeedSection, placement: Placement, *, average: bool = False
) -> States:
    """A trained model under one DeepSpeed engine."""
    trained, element = trained_parameters(shape, model), placement.element
    adapters = trained * element if model.lora is not None else 0.0
    sizes = EngineSizes(frozen_bytes(shape, model, element), adapters, trained, average)
    return engine_states(shape, sizes, section, placement)


def engine_states(shape: ModelShape, sizes: EngineSizes, section: DeepSpeedSection, placement: Placement) -> States:
    """Everything one engine holds on a rank."""
    if section.zero_stage == 0:
        return _replicated(sizes, placement)
    if section.zero_stage == 3:
        return _sharded_weights(shape, sizes, section, placement)
    return _sharded_optimizer(sizes, section, placement)


def _replicated(sizes: EngineSizes, placement: Placement) -> States:
    """ZeRO 0: everything on every rank. In half precision DeepSpeed keeps float32 masters, and makes float32
    gradients of them all at the step; in float32 the weights are the masters."""
    half, trained = placement.element == 2, sizes.trained
    exchanged = placement.world_size > 1 or half
    return States(
        weights=sizes.whole,
        adapters=sizes.adapters,
        master=MASTER * trained if half else 0,
        moments=MOMENTS * trained,
        average=sizes.average,
        gradients=placement.element * trained,
        reduction=placement.element * min(trained, BUCKET) if exchanged else 0,
        step=4 * trained if half else 0,
    )


def _sharded_optimizer(sizes: EngineSizes, section: DeepSpeedSection, placement: Placement) -> States:
    """ZeRO 1 and 2: a rank holds masters and moments of its part, also in float32. Gradients pass through buckets,
    which a GPU allocates whole (two of them where communication overlaps), and are flattened once more to be sent."""
    part, element = sizes.trained / placement.world_size, placement.element
    offloaded = section.offload_optimizer and placement.device == "gpu"
    buckets, filled = _buckets(sizes, section, placement, 2 if section.zero_stage == 2 else 1)
    return States(
        weights=sizes.whole,
        adapters=sizes.adapters,
        master=0 if offloaded else MASTER * part,
        moments=0 if offloaded else MOMENTS * part,
        average=sizes.average,
        gradients=0 if offloaded else element * part,
        reduction=element * (buckets + filled),
        bucket=element * buckets,
        step=0 if offloaded else 4 * part,
        host=(MASTER + MOMENTS + 4 + element) * part if offloaded else 0,
    )


def _sharded_weights(shape: ModelShape, sizes: EngineSizes, section: DeepSpeedSection, placement: Placement) -> States:
    """ZeRO 3: a part of everything; layers are gathered to be used, and stay while they are soon used again."""
    ranks, element, on_gpu = placement.world_size, placement.element, placement.device == "gpu"
    part, offloaded = sizes.trained / ranks, section.offload_optimizer and on_gpu
    parked = section.offload_parameters and on_gpu
    buckets, filled = _buckets(sizes, section, placement, 1)
    stepped = 0.0 if offloaded else (4 + (element if element == 2 else 0)) * min(part, SUB_GROUP)
    optimizer = (MASTER + MOMENTS) * part
    return States(
        weights=0 if parked else sizes.whole / ranks,
        adapters=sizes.adapters / ranks,
        master=0 if offloaded else MASTER * part,
        moments=0 if offloaded else MOMENTS * part,
        average=sizes.average / ranks,
        gradients=0 if offloaded else element * part,
        reduction=element * (buckets + filled),
        bucket=element * buckets,
        step=stepped,
        gathered=_live(shape, section) * element,
        host=(optimizer + (4 + element) * part if offloaded else 0) + (sizes.whole / ranks if parked else 0),
    )


def _buckets(sizes: EngineSizes, section: DeepSpeedSection, placement: Placement, count: int) -> tuple[float, float]:
    """Entries of the buckets as they are allocated, and of the gradients that fill one."""
    bucket = setting(section, "reduce_bucket_size", BUCKET)
    filled = min(sizes.trained, bucket)
    return bucket * count if placement.device == "gpu" else filled, filled


def _live(shape: ModelShape, section: DeepSpeedSection) -> float:
    """Entries that ZeRO 3 holds gathered: a model that is soon read again stays whole up to this many."""
    most = setting(section, "stage3_max_live_parameters", LIVE) + setting(
        section, "stage3_prefetch_bucket_size", PREFETCH
    )
    return float(min(shape.parameters, max(most, shape.layer_parameters, shape.embedding)))
