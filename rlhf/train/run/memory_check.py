"""The memory check that every stage makes before its models load."""

from __future__ import annotations

import os
from collections.abc import Callable

from rlhf.config.schema import StageConfig
from rlhf.engine.memory import free_memory
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError
from rlhf.plan.fit import advice, check_fits
from rlhf.plan.memory import GIB
from rlhf.plan.roles import stage_shapes


def require_memory(config: StageConfig, ranks: Ranks, say: Callable[[str], None]) -> None:
    """Compares the planned memory with what is free on this rank's device (on the CPU: its share of the node).

    Raises: ConfigError for a run that cannot fit, unless run.memory_check says otherwise.
    """
    wanted = config.run.memory_check
    if wanted == "off":
        return
    free, on_cpu = free_memory(ranks.device), ranks.device.type == "cpu"
    if on_cpu:
        here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or ranks.world_size)
        free //= here
    smallest = min(ranks.gather(free))
    try:
        plan = check_fits(config, ranks.world_size, smallest, device="cpu" if on_cpu else "gpu")
    except ConfigError as error:
        if wanted == "error":
            raise
        say(f"warning: {error}")
        return
    if plan is None:
        return
    say(f"memory: about {plan.peak / GIB:.1f} GiB a rank planned, {smallest / GIB:.1f} GiB free")
    if plan.peak > smallest:
        found = advice(config, stage_shapes(config), plan.placement, smallest)
        say(f"warning: with full rows it may run out of memory ({plan.largest}); what would fit: {found}")
