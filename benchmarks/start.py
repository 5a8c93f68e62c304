"""How long one waits: from the launch line to the first step, to a configuration error, and to a script's --help.

python benchmarks/start.py --out start.json [--rounds 5]

Seconds by the clock, with the ops of DeepSpeed built before. The model is a tiny one of random weights.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import CONDITIONS, ROOT, Side, alternate, deepspeed, say, write

from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import make_tiny_base

SCRIPT = ROOT / "scripts" / "step1_sft.py"
SIZE = TinySize(hidden=256, layers=4, heads=4, vocabulary=2000, epochs=0.01)
DATA = "demo:handwritten_train"


def seconds(command: Sequence[str], log: Path, status: Callable[[int], bool]) -> float:
    """Wall time of a command. Raises: SystemExit for a status that is not the expected one."""
    started = time.perf_counter()
    with log.open("ab") as file:
        done = subprocess.run(
            list(command), env=os.environ | CONDITIONS, cwd=ROOT, stdout=file, stderr=file, check=False
        )
    if not status(done.returncode):
        raise SystemExit(f"status {done.returncode}; see {log}")
    return time.perf_counter() - started


def first_step(base: Path, work: Path) -> dict[str, Any]:
    """From the launch line to the moment at which the first step is in metrics.jsonl."""
    folder = work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    words = [
        "--config", str(ROOT / "configs" / "demo" / "sft.yaml"), f"run.dir={folder}", f"model.path={base}",
        f"data.train={DATA}", "data.eval=[]", "data.template=kullm", "run.max_steps=1", "train.warmup_steps=0",
        "log.samples_every_steps=null",
    ]  # fmt: skip
    began = time.time()
    seconds(deepspeed(SCRIPT, *words), work / "log.txt", lambda status: status == 0)
    return {"seconds": (folder / "metrics.jsonl").stat().st_mtime - began}


def wrong_value(work: Path) -> dict[str, Any]:
    config = ["--config", str(ROOT / "configs" / "demo" / "sft.yaml"), "train.lr=fast"]
    return {"seconds": seconds(deepspeed(SCRIPT, *config), work / "log.txt", lambda status: status != 0)}


def shown_help(work: Path) -> dict[str, Any]:
    return {"seconds": seconds([sys.executable, str(SCRIPT), "--help"], work / "log.txt", lambda status: status == 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--rounds", type=int, default=5, help="times each is run (default: %(default)s)")
    options = parser.parse_args()
    work = options.out.resolve().with_suffix(".work")
    work.mkdir(parents=True, exist_ok=True)
    base = work / "base"
    if not (base / "config.json").is_file():
        make_tiny_base([DATA], base, size=SIZE, seed=17)
    say("a run that is not counted")
    first_step(base, work)
    sides = [
        Side("first_step", lambda number: first_step(base, work)),
        Side("wrong_value", lambda number: wrong_value(work)),
        Side("help", lambda number: shown_help(work)),
    ]
    rounds = alternate(sides, options.rounds)
    medians = {f"{side.name}_s": statistics.median(each[side.name]["seconds"] for each in rounds) for side in sides}
    write(options.out, {**medians, "rounds": rounds})
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
