"""The line that starts a stage, and the hostfile it needs on several machines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rlhf.config.stages import STAGES
from rlhf.plan.machine import Device


def launch_line(stage: str, config: str, words: Sequence[str], *, nodes: int, gpus: int, device: Device = "gpu") -> str:
    """`deepspeed ...` as it is typed on the first machine; `gpus` (or CPU processes) on each of `nodes`."""
    count = "--num_gpus" if device == "gpu" else "--num_accelerators"
    where = [count, str(gpus)] if nodes == 1 else ["--hostfile", "hostfile"]
    return shlex.join(["deepspeed", *where, f"scripts/{STAGES[stage].script}", "--config", config, *words])


def hostfile(nodes: int, gpus: int) -> str:
    """Lines of the hostfile, with names to be replaced; empty for one machine."""
    return "" if nodes == 1 else "".join(f"node{number} slots={gpus}\n" for number in range(1, nodes + 1))
