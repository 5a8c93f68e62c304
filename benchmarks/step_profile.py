"""Where the time of a step goes: by operator on the CPU, and the host's own time on the pretend GPU.

python benchmarks/step_profile.py --out step-profile.json [--quick]

Steps of stages 1, 2 and 3 of a random GPT-NeoX of 7.3 M parameters in float32 under torch.profiler; what no operator
claims is Python. The host's time is that of tests/support/pretend_gpu.py, without what a GPU would compute. Not called
profile.py, because a file of that name hides a module of Python that torch imports. About three minutes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu_setting import Setting, Sizes
from harness import ROOT, SIDES, run, say, write
from machine import description, state, summary
from scaling_points import BASE

SHOWN = 12  # operators of a stage
TINY = {"hidden": 64, "layers": 2, "vocabulary": 400, "steps": 1, "new_tokens": 8, "rollout": 4, "prompt": 16}
HOST = replace(BASE, hidden=64, vocabulary=1000, slots=(8, 64))  # how wide it is does not matter to the host


def shares(found: Mapping[str, Any]) -> dict[str, Any]:
    """The operators with the most time of their own, per step, and what no operator claims."""
    steps, wall = found["steps"], found["wall_s"]
    ordered = sorted(found["operators"].items(), key=lambda each: -each[1][1])
    claimed = sum(seconds for _, (_, seconds) in ordered)
    rows = [
        {"operator": name, "calls": calls / steps, "ms": 1000 * seconds / steps, "share": seconds / wall}
        for name, (calls, seconds) in ordered[:SHOWN]
    ]
    rest = sum(seconds for _, (_, seconds) in ordered[SHOWN:])
    return {
        "step_ms": 1000 * wall / steps,
        "operators": rows,
        "others": max(rest, 0.0) / wall,
        "python": max(wall - claimed, 0.0) / wall,
    }


def measured(script: str, words: list[str], sizes: Sizes, work: Path) -> dict[str, Any]:
    setting = Setting("cpu", "float32", sizes, str(work / "model"))
    setting.prepare()
    described, result = work / "setting.json", work / "result.json"
    setting.write(described)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    run([sys.executable, str(SIDES / script), *words, str(described), str(result)], work / "sides.log")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--quick", action="store_true", help="tiny models, one step of each: tries the script")
    options = parser.parse_args()
    os.environ["DS_ACCELERATOR"] = "cpu"
    work = options.out.with_suffix(".work").resolve()
    work.mkdir(parents=True, exist_ok=True)
    sizes, host = (replace(BASE, **TINY), replace(HOST, **TINY)) if options.quick else (BASE, HOST)
    states, stages = [state()], {}
    for stage in ("sft", "reward", "ppo"):
        stages[stage] = shares(measured("profiled_steps.py", [stage], sizes, work))
        states.append(state())
        say(f"{stage}: {stages[stage]['step_ms']:.0f} ms, {stages[stage]['python']:.0%} outside operators")
    spent = measured("host_time.py", [], host, work)
    states.append(state())
    for name, each in spent.items():
        say(f"{name}: {1000 * each['host_s']:.3f} ms, {each['launches']:.0f} launches")
    write(
        options.out,
        {
            "measured": datetime.date.today().isoformat(),
            "quick": options.quick,
            "machine": {**description(), **summary(states)},
            "versions": {name: version(name) for name in ("torch", "transformers", "deepspeed")},
            "stages": stages,
            "host": spent,
        },
    )
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
