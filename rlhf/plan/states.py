"""What a rank holds of a model's weights, gradients and optimizer, as this project's engines and DeepSpeed 0.19 do."""

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
    """Where a model is trained: ranks in all and on a node, their kind, and the type of arithmetic."""

    world_size: int
    device: Device
    dtype: str
    ranks_a_node: int = 1

    @property
    def element(self) -> int:
        """Bytes of a number."""
        return ELEMENT[self.dtype]


@dataclass(frozen=True)
class States:
    """Bytes of one rank. Resident through the run: weights, adapters, master (float32 copy), moments, average.

    gradients: from a backward pass to the step; reduction: DeepSpeed's buffers while gradients are exchanged, bucket
    the part of them that is allocated at once; step: what the update takes besides; gathered: whole weights that ZeRO 3
    brings together; host: what is offloaded.
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

    @property
    def resident(self) -> float:
        return self.weights + self.adapters + self.master + self.moments + self.average

    @property
    def at_step(self) -> float:
        """Model states where they are largest: at the optimizer's step."""
        return self.resident + self.gradients + self.step


def frozen_bytes(shape: ModelShape, model: ModelSection, element: int) -> float:
    """Bytes of all weights; in four bits the matrices of layers are, and nothing else."""
    if model.quantize == "none":
        return shape.parameters * element
    packed = shape.layers * shape.linear_weights
    return packed * FOUR_BITS + (shape.parameters - packed) * element


def trained_parameters(shape: ModelShape, model: ModelSection) -> int:
    """Parameters with a gradient: all, or adapters and the one-number head."""
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
    shape: ModelShape, model: ModelSection, section: DeepSpeedSection, job: Placement, *, offload: bool
) -> States:
    """A frozen model: whole below ZeRO 3, a part of it there."""
    whole = frozen_bytes(shape, model, job.element)
    if section.zero_stage < 3:
        return States(weights=whole)
    part = whole / job.world_size
    parked = job.device == "gpu" and (offload or section.offload_parameters)
    gathered = _live(shape, section) * job.element
    return States(weights=0 if parked else part, gathered=gathered, host=part if parked else 0)


def trained_states(
    shape: ModelShape, model: ModelSection, section: DeepSpeedSection, job: Placement, *, average: bool = False
) -> States:
    """A model that learns under one DeepSpeed engine."""
    trained = trained_parameters(shape, model)
    whole = frozen_bytes(shape, model, job.element)
    adapters = trained * job.element if model.lora is not None else 0.0
    return engine_states(shape, whole, adapters, trained, section, job, average=average)


def engine_states(
    shape: ModelShape,
    whole: float,
    adapters: float,
    trained: int,
    section: DeepSpeedSection,
    job: Placement,
    *,
    average: bool = False,
) -> States:
    """An engine over `whole` bytes of weights and `adapters` bytes beside them, of which `trained` numbers learn."""
    build = {0: _replicated, 1: _sharded_optimizer, 2: _sharded_optimizer, 3: _sharded_weights}[section.zero_stage]
    return build(shape, whole, adapters, float(trained), section, job, 4.0 * trained if average else 0.0)


def _replicated(
    shape: ModelShape,
    whole: float,
    adapters: float,
    trained: float,
    section: DeepSpeedSection,
    job: Placement,
    kept: float,
) -> States:
    """ZeRO 0: everything on every rank. In half precision DeepSpeed keeps float32 masters, and makes float32
    gradients of them all at the step; in float32 the weights are the masters."""
    half = job.element == 2
    exchanged = job.world_size > 1 or half
    return States(
        weights=whole,
        adapters=adapters,
        master=MASTER * trained if half else 0,
        moments=MOMENTS * trained,
        average=kept,
        gradients=job.element * trained,
        reduction=job.element * min(trained, BUCKET) if exchanged else 0,
        step=4 * trained if half else 0,
    )


def _sharded_optimizer(
    shape: ModelShape,
    whole: float,
    adapters: float,
    trained: float,
    section: DeepSpeedSection,
    job: Placement,
    kept: float,
) -> States:
    """ZeRO 1 and 2: a rank holds masters and moments of its part, also in float32. Gradients pass through buckets,
    which a GPU allocates whole (two of them where communication overlaps), and are flattened once more to be sent."""
    part, element = trained / job.world_size, job.element
    offloaded = section.offload_optimizer and job.device == "gpu"
    bucket = setting(section, "reduce_bucket_size", BUCKET)
    filled = min(trained, bucket)
    buckets = bucket * (2 if section.zero_stage == 2 else 1) if job.device == "gpu" else filled
    return States(
        weights=whole,
        adapters=adapters,
        master=0 if offloaded else MASTER * part,
        moments=0 if offloaded else MOMENTS * part,
        average=kept,
        gradients=0 if offloaded else element * part,
        reduction=element * (buckets + filled),
        bucket=element * buckets,
        step=0 if offloaded else 4 * part,
        host=(MASTER + MOMENTS + 4 + element) * part if offloaded else 0,
    )


def _sharded_weights(
    shape: ModelShape,
    whole: float,
    adapters: float,
    trained: float,
    section: DeepSpeedSection,
    job: Placement,
    kept: float,
) -> States:
    """ZeRO 3: a part of everything; layers are gathered to be used, and stay while they are soon used again."""
    ranks, element = job.world_size, job.element
    part, offloaded = trained / ranks, section.offload_optimizer and job.device == "gpu"
    parked = section.offload_parameters and job.device == "gpu"
    bucket = setting(section, "reduce_bucket_size", BUCKET)
    filled = min(trained, bucket)
    buckets = bucket if job.device == "gpu" else filled
    stepped = 0.0 if offloaded else (4 + (element if element == 2 else 0)) * min(part, SUB_GROUP)
    optimizer = (MASTER + MOMENTS) * part
    return States(
        weights=0 if parked else whole / ranks,
        adapters=adapters / ranks,
        master=0 if offloaded else MASTER * part,
        moments=0 if offloaded else MOMENTS * part,
        average=kept / ranks,
        gradients=0 if offloaded else element * part,
        reduction=element * (buckets + filled),
        bucket=element * buckets,
        step=stepped,
        gathered=_live(shape, section) * element,
        host=(optimizer + (4 + element) * part if offloaded else 0) + (whole / ranks if parked else 0),
    )


def _live(shape: ModelShape, section: DeepSpeedSection) -> float:
    """Entries that ZeRO 3 holds gathered: a model that is soon read again stays whole up to this many."""
    most = setting(section, "stage3_max_live_parameters", LIVE) + setting(
        section, "stage3_prefetch_bucket_size", PREFETCH
    )
    return float(min(shape.parameters, max(most, shape.layer_parameters, shape.embedding)))
