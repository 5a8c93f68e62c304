"""The command line that starts a stage, and the hostfile for several machines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rlhf.config.stages import STAGES
from rlhf.plan.machine import Device


def launch_line(stage: str, config: str, words: Sequence[str], *, nodes: int, gpus: int, device: Device = "gpu") -> str:
    """The `deepspeed` command for the first machine; `gpus` (or CPU processes) on each of `nodes`."""
    count = "--num_gpus" if device == "gpu" else "--num_accelerators"
    where = [count, str(gpus)] if nodes == 1 else ["--hostfile", "hostfile"]
    return shlex.join(["deepspeed", *where, f"scripts/{STAGES[stage].script}", "--config", config, *words])


def hostfile(nodes: int, gpus: int) -> str:
    """The hostfile, with placeholder names; empty for one machine."""
    return "" if nodes == 1 else "".join(f"node{number} slots={gpus}\n" for number in range(1, nodes + 1))
