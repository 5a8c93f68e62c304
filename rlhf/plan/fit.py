"""Whether a run fits and, if not, the cheapest change that makes it fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import yaml
from pydantic import ValidationError

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, RewardConfig, StageConfig
from rlhf.errors import ConfigError, ModelError
from rlhf.plan.batches import SHORTEST, longest_item
from rlhf.plan.engine_share import require_engine_share, require_room_for_engine
from rlhf.plan.machine import Device
from rlhf.plan.memory import GIB, MemoryPlan
from rlhf.plan.roles import Shapes, plan_memory, stage_shapes
from rlhf.plan.states import Placement

MARGIN = 0.15  # largest measured error of the plan: a refused run would not fit with 15 % less
MOST_CHANGES = 4
MORE_RANKS = (2, 4, 8, 16, 32, 64)


class PlanChange(NamedTuple):
    """`key=value` words of the command line; `cost` orders changes by their effect on speed or on the result."""

    text: str
    cost: float
    price: str


class Fit(NamedTuple):
    """The plan of a changed configuration that fits."""

    changes: tuple[PlanChange, ...]
    config: StageConfig
    plan: MemoryPlan

    @property
    def words(self) -> str:
        return " ".join(change.text for change in self.changes)


def possible_changes(config: StageConfig, placement: Placement) -> Iterator[PlanChange]:
    model, zero, gpu = config.model, config.deepspeed, placement.device == "gpu"
    if not model.gradient_checkpointing:
        yield PlanChange("model.gradient_checkpointing=true", 2.0, "a third more computation in training")
    yield from _smaller_batches(config)
    if gpu and zero.zero_stage > 0 and not zero.overrides:
        bucket = "deepspeed.overrides.zero_optimization.reduce_bucket_size=50000000"
        yield PlanChange(bucket, 0.5, "smaller communication buckets")
    for stage in (2, 3):
        if stage > zero.zero_stage and placement.world_size > 1:
            yield PlanChange(f"deepspeed.zero_stage={stage}", float(stage) + 0.5, "more communication")
    if gpu:
        yield from _offloads(config)
    if isinstance(config, PpoConfig) and config.ppo.roles == "separate" and model.lora is not None:
        words = "ppo.roles=shared" + (" deepspeed.zero_stage=2" if zero.zero_stage == 3 else "")
        yield PlanChange(words, 3.2, "every path must be a LoRA run on one base")
    if model.lora is None:
        price = "adapters learn instead of all weights; raise train.lr about ten times"
        yield PlanChange("model.lora.rank=16 model.lora.alpha=32", 7.0, price)
    elif model.quantize == "none" and gpu:
        yield PlanChange("model.quantize=4bit", 5.0, "slower products, and frozen weights rounded to four bits")


def _smaller_batches(config: StageConfig) -> Iterator[PlanChange]:
    """Fewer tokens per pass, fewer answers at a time: the same result, a little slower."""
    ranked = isinstance(config, RewardConfig | DpoConfig)
    least = config.data.max_length * 2 if ranked else longest_item(config)
    most = tokens = config.train.micro_tokens
    while tokens // 2 >= max(least, config.data.max_length):
        tokens //= 2
        yield PlanChange(f"train.micro_tokens={tokens}", 1.0 + 0.1 * most / tokens, "more passes")
    if isinstance(config, PpoConfig):
        for share in (2, 4):
            if config.sampling.batch_size and (slots := config.sampling.batch_size // share) >= 4:
                yield PlanChange(f"sampling.batch_size={slots}", 1.0 + 0.3 * share, "slower sampling")


def _offloads(config: StageConfig) -> Iterator[PlanChange]:
    zero = config.deepspeed
    if isinstance(config, PpoConfig) and config.ppo.roles == "separate":
        wanted = {"reference": not config.reference.offload}
        wanted["reward"] = bool(config.reward.path) and not config.reward.offload
        for role in (role for role, possible in wanted.items() if possible):
            yield PlanChange(f"{role}.offload=true", 2.5, "its weights are copied to the GPU in each iteration")
    if not zero.offload_optimizer and zero.zero_stage > 0:
        yield PlanChange("deepspeed.offload_optimizer=true", 4.0, "the update runs on the CPU")
    if zero.zero_stage == 3 and not zero.offload_parameters:
        yield PlanChange("deepspeed.offload_parameters=true", 9.0, "each layer is copied to the GPU in each pass")


def _words(changes: Iterable[PlanChange]) -> list[str]:
    return [word for change in changes for word in change.text.split()]


def changed(config: StageConfig, changes: tuple[PlanChange, ...]) -> StageConfig | None:
    """The configuration with changes; None if its validation refuses them."""
    content = config.model_dump()
    for word in _words(changes):
        key, _, value = word.partition("=")
        *groups, last = key.split(".")
        inside = content
        for group in groups:
            inside[group] = inner = inside.get(group) or {}
            inside = inner
        inside[last] = yaml.safe_load(value)
    try:
        return type(config).model_validate(content)
    except ValidationError:
        return None


def cheapest_fit(config: StageConfig, shapes: Shapes, placement: Placement, memory: float) -> Fit | None:
    """The cheapest set of at most four changes that brings the peak under `memory` bytes; None without one."""
    options = list(possible_changes(config, placement))
    sets = [
        each
        for count in range(1, MOST_CHANGES + 1)
        for each in combinations(options, count)
        if len({word.partition("=")[0] for word in _words(each)}) == len(_words(each))
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
            plan = plan_memory(config, shapes, replace(placement, world_size=world))
            if plan.peak <= memory:
                return world
    return None


def check_fits(
    config: StageConfig,
    world_size: int,
    memory_per_rank: float,
    *,
    device: Device = "cpu",
    card: float = 0.0,
    named: Mapping[str, str] | None = None,
) -> MemoryPlan | None:
    """The plan of a run with full rows; None if the shape of a model is not known. `card`: bytes of a whole GPU.

    Raises: ConfigError, with what would fit, for a run that exceeds `memory_per_rank` bytes even with rows of one token
        and 15 % less than planned: one that cannot fit whatever its data. It names rollout.vllm.gpu_memory where
        the share of vLLM is what does not fit.
    """
    try:
        shapes = stage_shapes(config, named)
    except ModelError:
        return None
    placement = Placement(world_size, device, config.model.dtype, card)
    require_engine_share(config, shapes, placement, memory_per_rank)
    least = plan_memory(config, shapes, placement, SHORTEST)
    if all(least.phase_bytes(name) * (1 - MARGIN) <= memory_per_rank for name in least.phases if name != "rollout"):
        require_room_for_engine(config, least, memory_per_rank)
    if least.peak * (1 - MARGIN) <= memory_per_rank:
        return plan_memory(config, shapes, placement)
    raise ConfigError(
        f"a rank needs at least {least.peak / GIB:.1f} GiB ({least.largest}), and {memory_per_rank / GIB:.1f} GiB are "
        "free",
        where="memory",
        expected="a run that fits; `rlhf plan CONFIG` shows every part of it",
        fix=advice(config, shapes, placement, memory_per_rank) + "; run.memory_check=warn starts it all the same",
    )


def check_host(plan: MemoryPlan, free: float) -> None:
    """Raises ConfigError for a run whose offloaded parts need more CPU memory than the `free` bytes of a rank."""
    if plan.host_bytes * (1 - MARGIN) <= free:
        return
    parts = ", ".join(f"{each.role} {each.part} {each.bytes / GIB:.1f}" for each in plan.host)
    keys = [f"{each.role}.offload" for each in plan.host if each.part == "parked"]
    if len(keys) < len(plan.host):
        keys.append("deepspeed.offload_optimizer or deepspeed.offload_parameters")
    raise ConfigError(
        f"a rank needs {plan.host_bytes / GIB:.1f} GiB of CPU memory ({parts}), and {free / GIB:.1f} GiB are free",
        where=", ".join(keys),
        expected="its offloaded parts in CPU memory, page-locked in blocks of a power of two",
        fix="offload less, or start fewer ranks per machine; run.memory_check=warn starts it all the same",
    )


def advice(config: StageConfig, shapes: Shapes, placement: Placement, memory: float) -> str:
    """What would fit: settings, ranks, or a smaller model."""
    found = cheapest_fit(config, shapes, placement, memory)
    if found is not None:
        return f"{found.words} ({found.plan.peak / GIB:.1f} GiB)"
    more = ranks_that_fit(config, shapes, placement, memory)
    return f"{more} ranks" if more else "no change of settings is enough: use a smaller model"
