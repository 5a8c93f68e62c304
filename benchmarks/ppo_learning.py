"""What stage 3 learns from its samples, against TRL's PPOTrainer, on tasks whose best score is known.

python benchmarks/ppo_learning.py --out ppo-learning.json [--seeds 5] [--rates 3] [--plot ppo-learning.svg]

Tasks: `polite` (pays for polite endings), `tokens` (for syllables without a final consonant), `length` (for 20 to 30
tokens) and `reward_model` (one trained on the demonstration rankings). Both sides start from the same tiny policy and
have the prompts, samples an iteration, epochs, KL weight, temperature and answer length alike; values start from the
reward model, or at 0. Everything else is each side's own default. The first seeds run at each learning rate, all seeds
at the best of their side. Two processes of one thread each run side by side: samples are counted here, not seconds. A
finished run stays in the work folder, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from curves import early_ratio, final, interval, plot, ratio_interval, sample_ratio
from environments import TRL_PPO, versions
from harness import ROOT, SIDES, deepspeed, run, say, write
from material import NOT_THE_DEMOS, Base
from ppo_material import Prompts, make_prompts

from rlhf.data.embedded import data_path
from rlhf.data.sources import DataSource
from rlhf.data.tokenizer import load_tokenizer
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import make_tiny_base

DATA = "demo:handwritten_train"
ROWS = {"sft": f'data.train=[{{path: "{DATA}", answers: all}}]', "reward": f"data.train={DATA}"}
TINY = TinySize(hidden=128, layers=2, heads=4, vocabulary=1500, epochs=2.0)
TASKS = ("polite", "tokens", "length", "reward_model")
SIDES_RUN = ("ours", "trl")
RATES = (1e-3, 3e-3, 3e-4)  # the middle one first, for short runs
BATCH, PROMPTS, NEW_TOKENS, MAX_PROMPT, EPOCHS, KL = 64, 256, 32, 64, 4, 0.05
SEARCH_SEEDS = 2  # seeds that choose the learning rate
SECONDS_A_RUN = {"ours": 30.0, "trl": 65.0}  # measured on one of 2 busy cores, 20 iterations
PROCESSES = 2
OPTIMUM = 1.0


@dataclass(frozen=True)
class Start:
    """Where every run of both sides begins."""

    policy: Path
    reward: Path
    prompts: Prompts


def prepare(work: Path) -> Start:
    """A tiny base, its stage 1 and stage 2 runs on the demonstration data, and prompts."""
    folder = work / "base"
    if not (folder / "config.json").is_file():
        make_tiny_base([DATA], folder, size=TINY, seed=17)
    policy = _stage(work, "sft", "step1_sft", f"model.path={folder}", "train.lr=1e-3", "data.eval=[]")
    reward = _stage(
        work,
        "reward",
        "step2_reward",
        f"model.path={policy}",
        "train.lr=1e-3",
        "train.epochs=1",
        "train.batch_size=8",
        "data.eval=demo:handwritten_dev",
    )
    base = Base(policy, TINY, load_tokenizer(str(policy)))
    source = [DataSource(data_path(DATA))]
    prompts = make_prompts(source, base, work, count=PROMPTS, max_tokens=MAX_PROMPT, name="prompts")
    return Start(policy, reward, prompts)


def _stage(work: Path, name: str, script: str, *words: str) -> Path:
    folder = work / name
    if not (folder / "model" / "manifest.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        config = ["--config", str(ROOT / "configs" / "demo" / f"{name}.yaml"), f"run.dir={folder}", ROWS[name]]
        run(deepspeed(ROOT / "scripts" / f"{script}.py", *config, *words), work / "stages.log")
    return folder / "model"


@dataclass(frozen=True)
class Grid:
    """Runs by task, side, learning rate and seed, each kept in a file."""

    work: Path
    start: Start
    python: Path
    iterations: int

    def result(self, task: str, side: str, rate: float, seed: int) -> Path:
        return self.work / "results" / f"{task}-{side}-{rate:g}-{seed}.json"

    def curves(self, task: str, side: str, rate: float, seeds: Sequence[int]) -> np.ndarray:
        """Rewards [seeds, iterations]."""
        found = [json.loads(self.result(task, side, rate, seed).read_text()) for seed in seeds]
        return np.asarray([each["reward"] for each in found])

    def run_all(self, wanted: Iterable[tuple[str, str, Sequence[tuple[float, int]]]]) -> None:
        """Runs (task, side, [(rate, seed)]), two at a time; the slower side first."""
        jobs = sorted(wanted, key=lambda job: -len(job[2]) * SECONDS_A_RUN[job[1]])
        with ThreadPoolExecutor(PROCESSES) as pool:
            list(pool.map(lambda job: self._run(*job), jobs))

    def _run(self, task: str, side: str, wanted: Sequence[tuple[float, int]]) -> None:
        """Makes the missing ones of `wanted` (rate, seed), in one process."""
        missing = [(rate, seed) for rate, seed in wanted if not self.result(task, side, rate, seed).is_file()]
        if not missing:
            return
        runs = [
            {
                "lr": rate,
                "seed": seed,
                "result": str(self.result(task, side, rate, seed)),
                "dir": str(self.work / f"run-{task}"),
            }
            for rate, seed in missing
        ]
        spec = self.work / f"{task}-{side}-spec.json"
        content = self.ours(task) if side == "ours" else self._trl(task)
        spec.write_text(json.dumps({**content, "runs": runs}))
        command = {"ours": [sys.executable, "ours_learning.py"], "trl": [str(self.python), "trl_ppo.py"]}[side]
        seconds = run([command[0], str(SIDES / command[1]), str(spec)], self.work / f"{task}-{side}.log")
        say(f"{task} {side}: {len(missing)} runs, {seconds / len(missing):.0f} s each")

    def _options(self, task: str) -> dict[str, str]:
        return {"tokenizer": str(self.start.policy)} if task == "length" else {}

    def ours(self, task: str) -> dict[str, Any]:
        function = json.dumps([{"path": f"tasks:{task}", "options": self._options(task)}])
        paid = [f"reward.path={self.start.reward}", "reward.min_accuracy=null"]
        if task != "reward_model":
            paid = ['reward.path=""', f"reward.functions={function}"]
        words = [
            "--config", str(ROOT / "configs" / "demo" / "ppo.yaml"), f"actor.path={self.start.policy}",
            *NOT_THE_DEMOS["ppo"],
            *paid, f"data.train={self.start.prompts.records}", "data.eval=[]",
            f"train.epochs={self.iterations * BATCH / PROMPTS}", f"run.max_steps={self.iterations}",
            f"train.batch_size={BATCH}", f"ppo.rollout_size={BATCH}", f"ppo.epochs={EPOCHS}",
            f"ppo.kl_coefficient={KL}", "ppo.score_clip=null", "ppo.missing_eos_penalty=0", "train.warmup_steps=0",
            f"sampling.max_new_tokens={NEW_TOKENS}", f"sampling.max_prompt_tokens={MAX_PROMPT}",
            f"sampling.batch_size={BATCH}", "log.samples_every_steps=null", "log.to=[]",
            "checkpoint.every_steps=100000",
        ]  # fmt: skip
        return {"tasks": str(SIDES), "words": words}

    def _trl(self, task: str) -> dict[str, Any]:
        return {
            "base": str(self.start.policy), "reward": str(self.start.reward), "prompts": str(self.start.prompts.ids),
            "task": None if task == "reward_model" else task, "options": self._options(task), "batch": BATCH,
            "micro": BATCH, "new_tokens": NEW_TOKENS, "steps": self.iterations, "epochs": EPOCHS,
            "kl_coefficient": KL, "missing_eos_penalty": 0.0, "parts": False,
        }  # fmt: skip


def best_rates(grid: Grid, tasks: Sequence[str], rates: Sequence[float], seeds: Sequence[int]) -> dict[Any, Any]:
    """(task, side) -> the final reward at each learning rate, the best of them first."""
    jobs = [(task, side) for task in tasks for side in SIDES_RUN]
    grid.run_all((*job, [(rate, seed) for rate in rates for seed in seeds]) for job in jobs)
    found = {}
    for job in jobs:
        finals = {rate: final(grid.curves(*job, rate, seeds).mean(0)) for rate in rates}
        found[job] = dict(sorted(finals.items(), key=lambda each: -each[1]))
    return found


def compare(grid: Grid, task: str, rates: dict[Any, dict[float, float]], seeds: Sequence[int]) -> dict[str, Any]:
    """One row: each side at its best learning rate, and how many samples we need for what TRL reaches."""
    row: dict[str, Any] = {"task": task, "optimum": None if task == "reward_model" else OPTIMUM}
    tables = {}
    for side in SIDES_RUN:
        finals = rates[task, side]
        best = next(iter(finals))
        table = tables[side] = grid.curves(task, side, best, seeds)
        reached = [final(curve) for curve in table]
        row[side] = {
            "lr": best,
            "final_reward": float(np.mean(reached)),
            "interval": interval(reached),
            "first_reward": float(table[:, 0].mean()),
            "final_reward_by_lr": {f"{rate:g}": value for rate, value in sorted(finals.items())},
            "curves": table.tolist(),
        }
    row["sample_ratio"] = sample_ratio(tables["ours"], tables["trl"], BATCH)
    row["early_sample_ratio"] = early_ratio(tables["ours"], tables["trl"], BATCH)
    row["sample_ratio_interval"] = ratio_interval(tables["ours"], tables["trl"], BATCH)
    return row


def finite(value: Any) -> Any:
    """JSON has no infinity: null stands for a level that is never reached, or an interval without an end."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--plot", type=Path, help="SVG to write (default: beside --out)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds at the best learning rate (default: %(default)s)")
    parser.add_argument("--rates", type=int, default=3, choices=range(1, len(RATES) + 1), help="learning rates a side")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="tasks to run (default: all)")
    parser.add_argument("--iterations", type=int, default=20, help="of 64 samples each (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder of finished runs, kept (default: beside --out)")
    return parser.parse_args()


def open_work(folder: Path, iterations: int) -> None:
    """Refuses a folder whose runs were of another setting."""
    setting = {"iterations": iterations, "batch": BATCH, "new_tokens": NEW_TOKENS, "epochs": EPOCHS, "kl": KL}
    (folder / "results").mkdir(parents=True, exist_ok=True)
    file = folder / "setting.json"
    if file.is_file() and json.loads(file.read_text()) != setting:
        raise SystemExit(f"{folder} holds runs of another setting; name another --work, or remove it")
    file.write_text(json.dumps(setting))


def main() -> None:
    options = parse()
    os.environ["OMP_NUM_THREADS"] = "1"
    work = (options.work or options.out.with_suffix(".work")).resolve()
    open_work(work, options.iterations)
    seeds, rates = range(17, 17 + options.seeds), RATES[: options.rates]
    search = seeds[:SEARCH_SEEDS]
    num_runs = len(options.tasks) * (len(rates) * len(search) + len(seeds) - len(search))
    minutes = num_runs * sum(SECONDS_A_RUN.values()) / PROCESSES * options.iterations / 20 / 60
    say(f"{2 * num_runs} runs, about {minutes:.0f} minutes on 2 cores, less what {work} holds already")
    started, python = time.monotonic(), TRL_PPO.python()
    grid = Grid(work, prepare(work), python, options.iterations)
    found = best_rates(grid, options.tasks, rates, search)
    grid.run_all((*job, [(next(iter(finals)), seed) for seed in seeds]) for job, finals in found.items())
    rows = []
    for task in options.tasks:
        rows.append(compare(grid, task, found, list(seeds)))
        row = rows[-1]
        say(
            f"{task}: ours {row['ours']['final_reward']:.3f} (lr {row['ours']['lr']:g})  "
            f"TRL {row['trl']['final_reward']:.3f} (lr {row['trl']['lr']:g})  sample ratio {row['sample_ratio']:.2f}"
        )
    say(f"{(time.monotonic() - started) / 60:.0f} minutes")
    picture = options.plot or options.out.with_suffix(".svg")
    plot(rows, BATCH, picture)
    alike = {"samples_an_iteration": BATCH, "iterations": options.iterations, "ppo_epochs": EPOCHS, "kl": KL}
    worst = max(row["sample_ratio"] for row in rows)
    write(
        options.out,
        {"sample_ratio": finite(worst), "tasks": finite(rows), "alike": alike, "versions": versions(python)},
    )
    say(f"plot: {picture}")


if __name__ == "__main__":
    main()
