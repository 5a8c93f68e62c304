"""The memory check that every stage makes before its models load."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from rlhf.config.schema import StageConfig
from rlhf.engine.memory import free_memory, total_memory
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError
from rlhf.plan.fit import advice, check_fits, check_host
from rlhf.plan.memory import GIB
from rlhf.plan.roles import stage_shapes


def require_memory(config: StageConfig, ranks: Ranks, say: Callable[[str], None]) -> None:
    """Compares the planned memory with what is free on this rank's device, and what is planned beside a GPU with this
    rank's share of the node's CPU memory.

    Raises: ConfigError for a run that cannot fit, unless run.memory_check says otherwise.
    """
    wanted = config.run.memory_check
    if wanted == "off":
        return
    on_cpu = ranks.device.type == "cpu"
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or ranks.world_size)
    host = free_memory(torch.device("cpu")) // here
    own = host if on_cpu else free_memory(ranks.device)
    smallest, smallest_host = (min(values) for values in zip(*ranks.gather((own, host)), strict=True))
    card = 0 if on_cpu else total_memory(ranks.device)
    try:
        plan = check_fits(config, ranks.world_size, smallest, device="cpu" if on_cpu else "gpu", card=card)
        if plan is not None:
            check_host(plan, smallest_host)
    except ConfigError as error:
        if wanted == "error":
            raise
        say(f"warning: {error}")
        return
    if plan is None:
        return
    beside = f"; {plan.host_bytes / GIB:.1f} GiB of CPU memory planned" if plan.host_bytes else ""
    say(f"memory: about {plan.peak / GIB:.1f} GiB per rank planned, {smallest / GIB:.1f} GiB free{beside}")
    if plan.peak > smallest:
        found = advice(config, stage_shapes(config), plan.placement, smallest)
        say(f"warning: with full rows it may run out of memory ({plan.largest}); what would fit: {found}")
