"""Whether a run fits and, if not, the cheapest change that makes it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pydantic import ValidationError

from rlhf.config.schema import PpoConfig, RewardConfig, StageConfig
from rlhf.errors import ConfigError, ModelError
from rlhf.plan.batches import SHORTEST, longest_item
from rlhf.plan.machine import Device
from rlhf.plan.memory import GIB, MemoryPlan
from rlhf.plan.roles import Shapes, plan_memory, stage_shapes
from rlhf.plan.states import Placement

MARGIN = 0.15  # largest measured error of the plan: a refused run would not fit with 15 % less
MOST_CHANGES = 4
MORE_RANKS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class PlanChange:
    """A `key=value` of the command line; `cost` orders changes by their effect on speed or on the result."""

    words: tuple[str, ...]
    cost: float
    price: str

    @property
    def text(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True)
class Fit:
    """The plan of a changed configuration that fits."""

    changes: tuple[PlanChange, ...]
    config: StageConfig
    plan: MemoryPlan

    @property
    def words(self) -> str:
        return " ".join(change.text for change in self.changes)


def possible_changes(config: StageConfig, placement: Placement) -> Iterator[PlanChange]:
    """Changes that this configuration allows."""
    model, zero = config.model, config.deepspeed
    if not model.gradient_checkpointing:
        yield PlanChange(("model.gradient_checkpointing=true",), 2.0, "a third more computation in training")
    yield from _smaller_batches(config)
    gpu = placement.device == "gpu"
    if gpu and zero.zero_stage > 0 and not zero.overrides:
        yield PlanChange(
            ("deepspeed.overrides.zero_optimization.reduce_bucket_size=50000000",), 0.5, "smaller communication buckets"
        )
    for stage in (2, 3):
        if stage > zero.zero_stage and (placement.world_size > 1 or (stage == 3 and zero.offload_parameters)):
            yield PlanChange((f"deepspeed.zero_stage={stage}",), float(stage) + 0.5, "more communication")
    if gpu:
        yield from _offloads(config)
    if isinstance(config, PpoConfig) and config.ppo.roles == "separate" and model.lora is not None:
        words = ("ppo.roles=shared",) + (("deepspeed.zero_stage=2",) if zero.zero_stage == 3 else ())
        yield PlanChange(words, 3.2, "every path must be a LoRA run on one base")
    if model.lora is None:
        words = ("model.lora.rank=16", "model.lora.alpha=32")
        yield PlanChange(words, 7.0, "adapters learn instead of all weights; raise train.lr about ten times")
    elif model.quantize == "none" and gpu:
        yield PlanChange(("model.quantize=4bit",), 5.0, "slower products, and frozen weights rounded to four bits")


def _smaller_batches(config: StageConfig) -> Iterator[PlanChange]:
    """Fewer tokens per pass, fewer answers at a time: the same result, a little slower."""
    least = longest_item(config)
    if isinstance(config, RewardConfig):
        least = config.data.max_length * 2
    tokens = config.train.micro_tokens
    while tokens // 2 >= max(least, config.data.max_length):
        tokens //= 2
        yield PlanChange(
            (f"train.micro_tokens={tokens}",), 1.0 + 0.1 * config.train.micro_tokens / tokens, "more passes"
        )
    if isinstance(config, PpoConfig):
        slots = config.sampling.batch_size
        for share in (2, 4):
            if slots // share >= 4:
                yield PlanChange((f"sampling.batch_size={slots // share}",), 1.0 + 0.3 * share, "slower sampling")


def _offloads(config: StageConfig) -> Iterator[PlanChange]:
    zero = config.deepspeed
    if isinstance(config, PpoConfig) and config.ppo.roles == "separate":
        if not config.reference.offload:
            yield PlanChange(("reference.offload=true",), 2.5, "its weights are copied to the GPU in each iteration")
        if not config.reward.offload and config.reward.path:
            yield PlanChange(("reward.offload=true",), 2.5, "its weights are copied to the GPU in each iteration")
    if not zero.offload_optimizer and zero.zero_stage > 0:
        yield PlanChange(("deepspeed.offload_optimizer=true",), 4.0, "the update runs on the CPU")
    if zero.zero_stage == 3 and not zero.offload_parameters:
        yield PlanChange(("deepspeed.offload_parameters=true",), 9.0, "each layer is copied to the GPU in each pass")


def changed(config: StageConfig, changes: tuple[PlanChange, ...]) -> StageConfig | None:
    """The configuration with changes; None if its validation refuses them."""
    content = config.model_dump()
    for word in (word for change in changes for word in change.words):
        key, _, value = word.partition("=")
        _put(content, key.split("."), value)
    try:
        return type(config).model_validate(content)
    except ValidationError:
        return None


def _put(content: dict[str, Any], keys: list[str], value: str) -> None:
    for key in keys[:-1]:
        content[key] = content.get(key) or {}
        content = content[key]
    content[keys[-1]] = int(value) if value.isdigit() else {"true": True, "false": False}.get(value, value)


def cheapest_fit(config: StageConfig, shapes: Shapes, placement: Placement, memory: float) -> Fit | None:
    """The cheapest set of at most four changes that brings the peak under `memory` bytes; None without one."""
    options = list(possible_changes(config, placement))
    sets = [
        each
        for count in range(1, MOST_CHANGES + 1)
        for each in combinations(options, count)
        if len({word.partition("=")[0] for change in each for word in change.words})
        == sum(len(change.words) for change in each)
    ]
    for changes in sorted(sets, key=lambda each: sum(change.cost for change in each)):
        candidate = changed(config, changes)
        if candidate is None:
            continue
        plan = plan_memory(candidate, shapes, placement)
        if plan.peak <= memory:
            return Fit(changes, candidate, plan)
    return None


def ranks_that_fit(config: StageConfig, shapes: Shapes, placement: Placement, memory: float) -> int | None:
    """The smallest larger number of ranks that fits as configured; None if 64 do not."""
    for world in MORE_RANKS:
        if world > placement.world_size:
            plan = plan_memory(config, shapes, Placement(world, placement.device, placement.dtype))
            if plan.peak <= memory:
                return world
    return None


def check_fits(
    config: StageConfig,
    world_size: int,
    memory_per_rank: float,
    *,
    device: Device = "cpu",
    named: Mapping[str, str] | None = None,
) -> MemoryPlan | None:
    """The plan of a run with full rows; None if the shape of a model is not known.

    Raises: ConfigError, with what would fit, for a run that exceeds `memory_per_rank` bytes even with rows of one token
        and 15 % less than planned: one that cannot fit whatever its data.
    """
    try:
        shapes = stage_shapes(config, named)
    except ModelError:
        return None
    placement = Placement(world_size, device, config.model.dtype)
    least = plan_memory(config, shapes, placement, SHORTEST)
    if least.peak * (1 - MARGIN) <= memory_per_rank:
        return plan_memory(config, shapes, placement)
    raise ConfigError(
        f"a rank needs at least {least.peak / GIB:.1f} GiB ({least.largest}), and {memory_per_rank / GIB:.1f} GiB are "
        "free",
        where="memory",
        expected="a run that fits; `rlhf plan CONFIG` shows every part of it",
        fix=advice(config, shapes, placement, memory_per_rank) + "; run.memory_check=warn starts it all the same",
    )


def advice(config: StageConfig, shapes: Shapes, placement: Placement, memory: float) -> str:
    """What would fit: settings, ranks, or a smaller model."""
    found = cheapest_fit(config, shapes, placement, memory)
    if found is not None:
        return f"{found.words} ({found.plan.peak / GIB:.1f} GiB)"
    more = ranks_that_fit(config, shapes, placement, memory)
    return f"{more} ranks" if more else "no change of settings is enough: use a smaller model"
