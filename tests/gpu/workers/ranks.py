"""One rank and its collectives on this process's device, and how long each group waits.

ranks.py RESULT [--tiny]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from rlhf.config.sections import DeepSpeedSection, OptimizerFields
from rlhf.engine.deepspeed import wrapped_engine
from rlhf.engine.optimizers import optimizer_of
from rlhf.engine.ranks import session

STEP_LIMIT_S = 50 * 60.0


def main(result: str, *_: str) -> None:
    with session(3, step_limit_s=STEP_LIMIT_S) as ranks:
        model = nn.Linear(4, 4)
        optimizer = optimizer_of([{"params": list(model.parameters())}], OptimizerFields(), offload=False)
        section = DeepSpeedSection(zero_stage=2)
        wrapped_engine(model, optimizer, section, ranks, dtype="bfloat16", max_grad_norm=1.0)
        given = torch.tensor([3.0, 5.0], device=ranks.device)
        summed, gathered, shared = given.clone(), [torch.empty_like(given)], given.clone()
        dist.all_reduce(summed)
        dist.all_gather(gathered, given)
        dist.broadcast(shared, 0)
        dist.barrier()
        groups = dist.distributed_c10d._world.pg_map
        timeouts = [group._get_backend(ranks.device).options._timeout.total_seconds() for group in groups]
        found = {
            "backend": dist.get_backend(),
            "device": str(ranks.device),
            "sum": summed.tolist(),
            "gathered": [each.tolist() for each in gathered],
            "broadcast": shared.tolist(),
            "global sum": ranks.global_sum(given.sum(), 1.5),
            "objects": ranks.gather({"rank": ranks.rank}),
            "timeouts": timeouts,
        }
        Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*(word for word in sys.argv[1:] if not word.startswith("--local_rank")))
