"""vLLM's share of a GPU: what it takes, and whether it can be had, before anything is built.

The engine takes its share of the whole card at its start and at each rollout, beside the roles that are resident; it is
asleep while these train. An engine on GPUs of its own (`rollout.vllm.devices`) takes nothing of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import StageConfig
from rlhf.errors import ConfigError
from rlhf.plan.activations import cache_bytes
from rlhf.plan.memory import CONTEXT, GIB, LOST, MemoryPlan
from rlhf.plan.shapes import ModelShape
from rlhf.plan.states import Placement

KEY = "rollout.vllm.gpu_memory"


def engine_bytes(config: PpoConfig, shape: ModelShape, placement: Placement) -> float:
    """Bytes of an awake engine on the card of the roles: its share of it, and no less than it needs."""
    if config.rollout.vllm.devices:
        return 0.0
    return max(config.rollout.vllm.gpu_memory * placement.card, least_engine_bytes(config, shape, placement))


def least_engine_bytes(config: PpoConfig, shape: ModelShape, placement: Placement) -> float:
    """Bytes below which an engine does not start: weights, the keys and values of one answer, and its working memory
    (CUDA, and the logits of a token)."""
    longest = config.sampling.max_prompt_tokens + config.sampling.max_new_tokens
    cache = cache_bytes(shape, placement.element, 1, longest)
    return shape.parameters * placement.element + cache + CONTEXT[placement.device] + 4.0 * shape.vocabulary


def _shares_card(config: PpoConfig) -> bool:
    return config.rollout.backend == "vllm" and not config.rollout.vllm.devices


def require_engine_share(
    config: StageConfig, shapes: Mapping[str, ModelShape], placement: Placement, free: float
) -> None:
    """Raises ConfigError for a share that the actor's weights do not fit into, or that is more than is free now."""
    if not isinstance(config, PpoConfig) or not _shares_card(config) or not placement.card:
        return
    share, card = config.rollout.vllm.gpu_memory, placement.card
    least = math.ceil(100 * least_engine_bytes(config, shapes["actor"], placement) / card) / 100
    if share < least:
        raise ConfigError(
            f"{share:g} of a GPU is {share * card / GIB:.1f} GiB, and the actor's weights alone take "
            f"{shapes['actor'].parameters * placement.element / GIB:.1f} GiB in vLLM",
            where=KEY,
            expected=f"at least {least:g}: weights, the cache of one answer, and vLLM's own memory",
            fix=f"raise it to {least:g} or more" if least < 1 else "set rollout.backend=transformers",
        )
    if share * card > free:
        raise ConfigError(
            f"{share:g} of a GPU is {share * card / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free",
            where=KEY,
            expected="a share that is free when the engine starts",
            fix=f"lower it to {math.floor(100 * free / card) / 100:g}, or free the GPU of other processes",
        )


def require_room_for_engine(config: StageConfig, plan: MemoryPlan, memory: float) -> None:
    """Raises ConfigError for a plan whose rollout, with vLLM's share, exceeds `memory` bytes.

    Without a margin: what lies there beside the share is weights and optimizer states, and vLLM refuses to start where
    its share is not free.
    """
    if not isinstance(config, PpoConfig) or not _shares_card(config) or not plan.placement.card:
        return
    engine = sum(each.bytes for each in plan.phases["rollout"] if each.role == "vllm")
    if plan.phase_bytes("rollout") <= memory:
        return
    roles = plan.phase_bytes("rollout") - (1 + LOST["gpu"]) * engine
    room = max(0.0, math.floor(100 * (memory - roles) / (1 + LOST["gpu"]) / plan.placement.card) / 100)
    raise ConfigError(
        f"the roles take {roles / GIB:.1f} GiB and vLLM {engine / GIB:.1f} GiB; {memory / GIB:.1f} GiB are free",
        where=KEY,
        expected="roles and engine together on one GPU",
        fix=f"lower it to {room:g}, offload the reference and the reward, or set rollout.backend=transformers",
    )
