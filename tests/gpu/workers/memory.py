"""Fills most of the card and frees it, then runs two iterations of PPO in what torch has kept.

memory.py RESULT MODELS [--tiny]
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch

from rlhf.engine.memory import free_memory
from rlhf.engine.ranks import session
from tests.support.stage_steps import Steps

MIB = 2**20
SHARE = 0.9
TINY_BYTES = 64 * MIB


def fill(device: torch.device, wanted: int) -> int:
    """Allocates blocks of mixed sizes and frees them again; the bytes of all of them."""
    generator, held, filled = random.Random(5), [], 0
    while filled < wanted:
        size = min(generator.choice((1, 7, 48, 256, 900)) * MIB, wanted - filled)
        held.append(torch.empty(size, dtype=torch.uint8, device=device))
        filled += size
    del held
    return filled


def main(result: str, models: str, *flags: str) -> None:
    with session(3) as ranks:
        device, found = ranks.device, dict[str, Any]()
        on_gpu = device.type == "cuda"
        before = free_memory(device)
        found["before"], found["filled"] = before, fill(device, TINY_BYTES if flags else int(SHARE * before))
        found["driver"] = torch.cuda.mem_get_info(device)[0] if on_gpu else None
        found["after"] = free_memory(device)
        steps = Steps(Path(models), ranks, "bfloat16", "auto")
        found["steps"] = []
        for name, action in steps.policy():
            action()
            found["steps"].append(name)
        if on_gpu:
            found["retries"] = torch.cuda.memory_stats(device)["num_alloc_retries"]
            found["reserved"] = torch.cuda.memory_reserved(device)
        Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
