"""What stage 3 learns with answers that start from the last ones to the same prompts (rollout.reuse), and without.

python benchmarks/reuse_learning.py --out reuse-learning.json [--seeds 5] [--tasks polite tokens] [--plot FILE.svg]

The tasks, the policy and the settings are those of ppo_learning.py: 256 prompts, 64 of them an iteration, so that an
epoch is 4 iterations, and 20 iterations are 5 epochs. Both sides have the same seeds and differ from the fifth
iteration on. A figure is the final reward with reuse less that without, seed by seed, with a 95 % interval by Student's
t: the curves agree where it holds 0. A finished run stays in the work folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from curves import final, interval, plot
from harness import SIDES, run, say, write
from ppo_learning import BATCH, OPTIMUM, PROCESSES, TASKS, Grid, finite, open_work, prepare

SIDES_RUN = {"anew": "rollout.reuse=false", "reuse": "rollout.reuse=true"}
LABELS = {"anew": "without reuse", "reuse": "with reuse"}


@dataclass(frozen=True)
class Job:
    """The runs of one side on one task, in one process."""

    grid: Grid
    task: str
    side: str
    rate: float
    seeds: tuple[int, ...]

    def result(self, seed: int) -> Path:
        return self.grid.result(self.task, self.side, self.rate, seed)

    def run(self) -> None:
        """Makes the missing runs."""
        missing = [seed for seed in self.seeds if not self.result(seed).is_file()]
        if not missing:
            return
        name, work = f"{self.task}-{self.side}", self.grid.work
        content = self.grid.ours(self.task)
        runs = [
            {"lr": self.rate, "seed": seed, "result": str(self.result(seed)), "dir": str(work / f"run-{name}")}
            for seed in missing
        ]
        spec = work / f"{name}-spec.json"
        spec.write_text(json.dumps({**content, "words": [*content["words"], SIDES_RUN[self.side]], "runs": runs}))
        seconds = run([sys.executable, str(SIDES / "ours_learning.py"), str(spec)], work / f"{name}.log")
        say(f"{name}: {len(missing)} runs, {seconds / len(missing):.0f} s each")

    def curves(self, name: str) -> np.ndarray:
        """One figure of each run, [seeds, iterations]."""
        return np.asarray([json.loads(self.result(seed).read_text())[name] for seed in self.seeds])


def compared(jobs: dict[str, Job]) -> dict[str, Any]:
    """One row: both sides of a task, and the difference of their final rewards by seed."""
    row: dict[str, Any] = {"task": jobs["reuse"].task}
    row["optimum"] = None if row["task"] == "reward_model" else OPTIMUM
    finals = {}
    for side, job in jobs.items():
        table = job.curves("reward")
        finals[side] = np.asarray([final(curve) for curve in table])
        row[side] = {
            "lr": job.rate,
            "final_reward": float(finals[side].mean()),
            "interval": interval(finals[side].tolist()),
            "curves": table.tolist(),
        }
    differences = (finals["reuse"] - finals["anew"]).tolist()
    row |= {"difference": float(np.mean(differences)), "difference_interval": interval(differences)}
    row["accepted_share"] = jobs["reuse"].curves("accepted_share").mean(0).tolist()
    return row


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--plot", type=Path, help="SVG to write (default: beside --out)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each side (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of both sides (default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="tasks to run (default: all)")
    parser.add_argument("--iterations", type=int, default=20, help="of 64 samples each (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder of finished runs, kept (default: beside --out)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    os.environ["OMP_NUM_THREADS"] = "1"
    work = (options.work or options.out.with_suffix(".work")).resolve()
    open_work(work, options.iterations)
    grid = Grid(work, prepare(work), Path(), options.iterations)
    seeds = tuple(range(17, 17 + options.seeds))
    jobs = {task: {side: Job(grid, task, side, options.lr, seeds) for side in SIDES_RUN} for task in options.tasks}
    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(Job.run, [job for sides in jobs.values() for job in sides.values()]))
    rows = [compared(sides) for sides in jobs.values()]
    for row in rows:
        low, high = row["difference_interval"]
        say(
            f"{row['task']}: with reuse {row['reuse']['final_reward']:.3f}, without {row['anew']['final_reward']:.3f}, "
            f"difference {row['difference']:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"last accepted share {row['accepted_share'][-1]:.2f}"
        )
    plot(rows, BATCH, options.plot or options.out.with_suffix(".svg"), LABELS)
    write(options.out, {"tasks": finite(rows), "seeds": len(seeds), "iterations": options.iterations})


if __name__ == "__main__":
    main()
