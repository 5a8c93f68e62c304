"""Optimizer steps, tokens, floating-point operations and hours of a run, at a stated utilisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, StageConfig
from rlhf.plan.batches import longest_item
from rlhf.plan.roles import Shapes
from rlhf.plan.steps import count_rows, planned_steps, warmup_steps
from rlhf.rollout.capacity import CPU_SLOTS

A100_FLOPS, A100_BANDWIDTH = 312e12, 1.6e12  # bfloat16 operations and bytes per second of one A100


@dataclass(frozen=True)
class RunEstimate:
    """Size and time of a run. rows: of data.train; assumed: whether they stand in for files that do not exist.

    tokens are an upper bound (every row as long as it may be); flops over all ranks; hours on all ranks together.
    """

    rows: int
    assumed: bool
    steps: int
    updates: int
    warmup: int
    tokens: float
    flops: float
    hours: float
    utilisation: float

    @property
    def warmup_share(self) -> float:
        return self.warmup / max(1, self.steps)


def estimate_run(
    config: StageConfig, shapes: Shapes, world_size: int, *, utilisation: float, flops_per_second: float
) -> RunEstimate:
    """Steps, tokens and hours; `flops_per_second` is one rank's peak."""
    sizes, assumed = count_rows(config)
    per_step = config.ppo.num_prompts if isinstance(config, PpoConfig) else config.train.batch_size
    steps = planned_steps(config, sizes)
    limit = config.run.max_steps
    done = steps if limit is None else min(steps, limit)
    items = done * per_step
    updates, tokens, flops, decode_s = done, float(items * longest_item(config)), 0.0, 0.0
    if isinstance(config, PpoConfig):
        samples = done * config.ppo.rollout_size
        updates = done * config.ppo.epochs * (config.ppo.rollout_size // config.train.batch_size)
        tokens = float(samples * longest_item(config))
        flops, decode_s = _ppo_flops(config, shapes, tokens), _decode_seconds(config, shapes, done, world_size)
    else:
        shape = shapes["model"]
        length = config.data.max_length
        flops = tokens * (_training(config) * shape.parameters + 6.0 * shape.layers * shape.width * length)
        if isinstance(config, DpoConfig) and config.dpo.has_reference:  # one forward pass over each row of an epoch
            flops += sum(sizes) * longest_item(config) * 2.0 * shape.parameters
    hours = (flops / (flops_per_second * utilisation * world_size) + decode_s) / 3600
    return RunEstimate(
        sum(sizes), assumed, steps, updates, warmup_steps(config.train, steps), tokens, flops, hours, utilisation
    )


def _training(config: StageConfig) -> float:
    """Operations per parameter and token: forward 2, gradient of activations 2, of weights 2, recomputation 2."""
    of_weights = 0.0 if config.model.lora is not None else 2.0
    return 4.0 + of_weights + (2.0 if config.model.gradient_checkpointing else 0.0)


def _ppo_flops(config: PpoConfig, shapes: Shapes, tokens: float) -> float:
    """Sampling, one forward pass per role, and `ppo.epochs` training passes per trained role."""
    read = sum(2.0 * shape.parameters for shape in shapes.values())
    trained = sum(_training(config) * shapes[role].parameters for role in ("actor", "critic") if role in shapes)
    return tokens * (read + config.ppo.epochs * trained)


def _decode_seconds(config: PpoConfig, shapes: Shapes, iterations: int, world_size: int) -> float:
    """A decode step reads all weights once for all slots: it is bound by memory bandwidth."""
    waves = math.ceil(config.ppo.rollout_size / world_size / (config.sampling.batch_size or CPU_SLOTS))
    weights = shapes["actor"].parameters * 2.0 * (0.25 if config.model.quantize == "4bit" else 1.0)
    return iterations * waves * config.sampling.max_new_tokens * weights / A100_BANDWIDTH / 0.5
