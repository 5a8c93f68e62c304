"""Two ranks: the time-outs of their groups, and work of rank 0 that takes longer than a collective may."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from rlhf.config.sections import DeepSpeedSection, OptimizerFields
from rlhf.engine.optimizers import optimizer_of
from rlhf.engine.ranks import Ranks, session
from rlhf.engine.wrapping import wrapped_engine
from rlhf.errors import DataError

STEP_LIMIT_S = 50 * 60.0
SHORT_S = 1.0


def timeouts_s() -> list[float]:
    """Of every group of this process."""
    groups = dist.distributed_c10d._world.pg_map
    return [group._get_backend(torch.device("cpu")).options._timeout.total_seconds() for group in groups]


def make_engine(ranks: Ranks) -> None:
    section = DeepSpeedSection(zero_stage=2)
    model = nn.Linear(4, 4)
    optimizer = optimizer_of([{"params": list(model.parameters())}], OptimizerFields(), offload=False)
    wrapped_engine(model, optimizer, section, ranks, dtype="float32", max_grad_norm=1.0)


def shorten() -> None:
    for group in dist.distributed_c10d._world.pg_map:
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=SHORT_S), group)


def slow_answer() -> str:
    time.sleep(3 * SHORT_S)
    return "an answer"


def slow_failure() -> None:
    time.sleep(2 * SHORT_S)
    raise DataError("a bad row", fix="mend it")


def late_sum(ranks: Ranks) -> str:
    """What a collective does meanwhile: rank 1 waits for longer than the group allows."""
    if ranks.is_main:
        time.sleep(3 * SHORT_S)
    try:
        dist.all_reduce(torch.ones(1))
    except RuntimeError:
        return "timed out"
    return "came"


def observe(ranks: Ranks) -> dict[str, object]:
    make_engine(ranks)
    found: dict[str, object] = {"groups": len(timeouts_s()), "timeouts": sorted(set(timeouts_s()))}
    shorten()
    found["result"] = ranks.on_main(slow_answer)
    try:
        ranks.on_main(slow_failure)
    except DataError as error:
        found["error"] = [error.problem, error.fix]
    if not ranks.is_main:
        time.sleep(2 * SHORT_S)
    found["gathered"] = ranks.gather(ranks.rank * 10)
    ranks.barrier()
    found["late"] = late_sum(ranks)
    return found


if __name__ == "__main__":
    import sys

    with session(3, step_limit_s=STEP_LIMIT_S) as joined:
        observed = observe(joined)
        (Path(sys.argv[-1]) / f"rank-{joined.rank}.json").write_text(json.dumps(observed), encoding="utf-8")
