"""Steps of a stage under torch.profiler: profiled_steps.py PART SETTING RESULT, PART being sft, reward or ppo.

The parts are those of gpu_part.py; their first run of a step is not profiled.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import gpu_part
from gpu_models import Bench
from gpu_setting import Setting
from torch.profiler import ProfilerActivity, profile

from rlhf.engine.ranks import session


class ProfiledBench(Bench):
    """Profiles what it times, from the second run of each action on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.warm = 1
        self.walls: list[float] = []
        self.operators: dict[str, list[float]] = {}

    def timed(self, action: Callable[[], Any]) -> float:
        if self.warm:
            self.warm -= 1
            return super().timed(action)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            started = time.perf_counter()
            action()
            wall = time.perf_counter() - started
        self.walls.append(wall)
        for event in profiler.key_averages():
            calls, seconds = self.operators.setdefault(event.key, [0, 0.0])
            self.operators[event.key] = [calls + event.count, seconds + event.self_cpu_time_total / 1e6]
        return wall


def main(part: str, setting: str, result: str) -> None:
    with session(17) as ranks:
        bench = ProfiledBench(Setting.read(Path(setting)), ranks.device)
        bench.warm = 3 if part == "ppo" else 1  # an iteration has three timed parts
        {"sft": lambda: gpu_part.sft(bench, ranks, "sdpa"), "reward": lambda: gpu_part.reward(bench, ranks)}.get(
            part, lambda: gpu_part.ppo(bench, ranks)
        )()
        found = {"wall_s": sum(bench.walls), "steps": bench.setting.sizes.steps, "operators": bench.operators}
        Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
