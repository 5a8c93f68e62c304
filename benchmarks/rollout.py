"""Answers by vLLM against the loop of this package, the price of a push, the gap, and what drawing ahead changes.

python benchmarks/rollout.py --out rollout.json [--python ENV/bin/python] [--rounds 5] [--seeds 3]

Needs an environment with vLLM: `.venv-vllm`, which `make test-vllm` makes, or what VLLM_PYTHON or --python names. The
policy is a GPT-NeoX of 3.9 M parameters in float32 that stages 1 and 2 trained on the demonstration data. Speed: both
sides answer the same prompts, 32 and 128 at a time, with at most 64 new tokens; EOS ends an answer, and tokens drawn
are counted. Learning: stage 3 with both backends, and with `rollout.overlap=1`, from the same start, for every seed in
turn; engine and trainer share the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from curves import final, interval
from harness import ROOT, Side, alternate, deepspeed, drop_scratch, ratio, run, say, scratch, write
from material import NOT_THE_DEMOS, Base
from ppo_material import Prompts, make_prompts

from rlhf.config.rollout import RolloutSection, VllmSection
from rlhf.config.sections import SamplingSection
from rlhf.data.embedded import data_path
from rlhf.data.sources import DataSource
from rlhf.data.tokenizer import load_tokenizer
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import make_tiny_base
from rlhf.engine.ranks import Ranks
from rlhf.models.loading import PackedCausalLM, load_causal_lm
from rlhf.rollout.base import Rollout
from rlhf.rollout.transformers import TransformersRollout
from rlhf.rollout.vllm.client import VllmRollout
from rlhf.rollout.vllm.start import start_engine

DATA = "demo:handwritten_train"
ROWS = {"sft": f'data.train=[{{path: "{DATA}", answers: all}}]', "reward": f"data.train={DATA}"}
SIZE = TinySize(hidden=256, layers=4, heads=4, vocabulary=1500, epochs=2.0)
TOGETHER = (32, 128)
NEW_TOKENS, MAX_PROMPT, CACHE_GIB = 64, 64, 0.5
BATCH, PROMPTS, LR, KL = 64, 256, 3e-4, 0.05
PUSHES = 7  # the first one is not counted: it builds what the later ones use again
VARIANTS: dict[str, list[str]] = {
    "transformers": [],
    "vllm": ["rollout.backend=vllm"],
    "overlap": ["rollout.backend=vllm", "rollout.overlap=1"],
}


@dataclass(frozen=True)
class Start:
    """What every run of stage 3 begins from."""

    policy: Path
    reward: Path
    prompts: Prompts


def prepare(work: Path) -> Start:
    """A base, its runs of stages 1 and 2, and prompts."""
    folder = work / "base"
    if not (folder / "config.json").is_file():
        make_tiny_base([DATA], folder, size=SIZE, seed=17)
    policy = _stage(work, "sft", "step1_sft", f"model.path={folder}")
    reward = _stage(work, "reward", "step2_reward", f"model.path={policy}", "train.epochs=1", "train.batch_size=8")
    base = Base(policy, SIZE, load_tokenizer(str(policy)))
    source = [DataSource(data_path(DATA))]
    return Start(policy, reward, make_prompts(source, base, work, count=PROMPTS, max_tokens=MAX_PROMPT, name="prompts"))


def _stage(work: Path, name: str, script: str, *words: str) -> Path:
    folder = work / name
    if not (folder / "model" / "manifest.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        config = ["--config", str(ROOT / "configs" / "demo" / f"{name}.yaml"), f"run.dir={folder}", ROWS[name]]
        more = [*NOT_THE_DEMOS[name], "train.lr=1e-3", "data.eval=[]", *words]
        run(deepspeed(ROOT / "scripts" / f"{script}.py", *config, *more), work / "stages.log")
    return folder / "model"


def speed(start: Start, python: Path, work: Path, rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Tokens/s of both backends in this process, and the seconds of a push."""
    packed, tokenizer = load_causal_lm(str(start.policy)).eval(), load_tokenizer(str(start.policy))
    rollout = RolloutSection(backend="vllm", vllm=VllmSection(python=str(python), cpu_cache_gib=CACHE_GIB))
    engine = start_engine(
        str(start.policy),
        rollout,
        _sampling(max(TOGETHER)),
        Ranks(0, 0, 1, packed.model.device),
        dtype="float32",
        eos=[tokenizer.eos_id],
        decode=tokenizer.text,
        run_folder=work,
    )
    try:
        pushes = [_push_seconds(engine, packed) for _ in range(PUSHES)]
        own = TransformersRollout(packed.model, tokenizer.eos_id, tokenizer.text)
        figures: dict[str, float] = {"push_s": statistics.median(pushes[1:])}
        details: dict[str, Any] = {"pushes_s": pushes, "weights_mib": _weights_mib(packed)}
        for count in TOGETHER:
            prompts = [np.asarray(ids, np.int32) for ids in json.loads(start.prompts.ids.read_text())["ids"][:count]]
            sides = [
                Side("vllm", _drawing(engine, prompts, count)),
                Side("transformers", _drawing(own, prompts, count)),
            ]
            for side in sides:
                side.measure(-1)  # warm
            found = alternate(sides, rounds)
            figures[f"tokens_ratio_{count}"] = ratio(found, "vllm", "transformers", "tokens_per_s")
            details[f"rounds_{count}"] = found
    finally:
        engine.close()
    return figures, details


def _sampling(count: int) -> SamplingSection:
    return SamplingSection(max_new_tokens=NEW_TOKENS, max_prompt_tokens=MAX_PROMPT, batch_size=count, temperature=1.0)


def _push_seconds(engine: VllmRollout, packed: PackedCausalLM) -> float:
    started = time.perf_counter()
    failure = engine.push(packed.model)
    if failure is not None:
        raise failure
    return time.perf_counter() - started


def _weights_mib(packed: PackedCausalLM) -> float:
    return sum(each.nbytes for each in packed.model.parameters()) / 2**20


def _drawing(rollout: Rollout, prompts: list[Any], count: int) -> Callable[[int], dict[str, Any]]:
    def draw(number: int) -> dict[str, Any]:
        streams = [(17, number + 1, place, 0) for place in range(len(prompts))]
        started = time.perf_counter()
        drawn = rollout.generate(prompts, streams, _sampling(count))
        seconds = time.perf_counter() - started
        tokens = sum(map(len, drawn.tokens))
        return {"tokens_per_s": tokens / seconds, "tokens": tokens, "seconds": seconds}

    return draw


def learning(
    start: Start, python: Path, work: Path, iterations: int, seeds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Stage 3 with each variant, seed by seed: speed, reward and gap."""

    def side(name: str) -> Side:
        def measure(number: int) -> dict[str, Any]:
            folder = work / "run"
            shutil.rmtree(folder, ignore_errors=True)
            more = [*VARIANTS[name], f"rollout.vllm.python={python}", f"rollout.vllm.cpu_cache_gib={CACHE_GIB}"]
            words = _ppo_words(start, folder, iterations, 17 + number)
            run(deepspeed(ROOT / "scripts" / "step3_ppo.py", *words, *more), work / f"{name}.log")
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            if len(lines) != iterations:
                raise SystemExit(f"{name} stopped after {len(lines)} of {iterations} iterations; see {work}/{name}.log")
            walls = [line["time/wall_s"] for line in lines]
            return {
                "iteration_s": (walls[-1] - walls[1]) / (iterations - 2),
                "reward": [line["objective/reward"] for line in lines],
                "kl": [line["objective/kl"] for line in lines],
                "gap": statistics.mean(line.get("rollout/gap", 0.0) for line in lines[1:]),
                "rollout_s": statistics.median(line["time/rollout_s"] for line in lines[1:]),
            }

        return Side(name, measure)

    found = alternate([side(name) for name in VARIANTS], seeds)
    figures: dict[str, Any] = {
        "ppo_iteration_ratio_vllm": ratio(found, "transformers", "vllm", "iteration_s"),
        "ppo_iteration_ratio_overlap": ratio(found, "vllm", "overlap", "iteration_s"),
    }
    for name in VARIANTS:
        finals = [final(each[name]["reward"]) for each in found]
        figures[f"final_reward_{name}"] = statistics.mean(finals)
        figures[f"final_reward_interval_{name}"] = interval(finals)
        figures[f"gap_{name}"] = statistics.mean(each[name]["gap"] for each in found)
    change = [final(each["overlap"]["reward"]) - final(each["vllm"]["reward"]) for each in found]
    figures["overlap_reward_change"] = statistics.mean(change)
    figures["overlap_reward_change_interval"] = interval(change)
    return figures, {"rounds_ppo": found}


def _ppo_words(start: Start, folder: Path, iterations: int, seed: int) -> list[str]:
    return [
        "--config", str(ROOT / "configs" / "demo" / "ppo.yaml"), f"run.dir={folder}", f"run.seed={seed}",
        *NOT_THE_DEMOS["ppo"],
        f"actor.path={start.policy}", f"reward.path={start.reward}", "reward.min_accuracy=null",
        f"data.train={start.prompts.records}", "data.eval=[]", f"train.epochs={(iterations + 1) * BATCH / PROMPTS}",
        f"run.max_steps={iterations}", f"train.batch_size={BATCH}", f"ppo.rollout_size={BATCH}",
        f"train.lr={LR}", f"critic.lr={LR}", "train.warmup_steps=0", f"ppo.kl_coefficient={KL}",
        f"sampling.max_new_tokens={NEW_TOKENS}", f"sampling.max_prompt_tokens={MAX_PROMPT}",
        f"sampling.batch_size={BATCH}", "log.samples_every_steps=null", "log.to=[]",
        "checkpoint.every_steps=100000", "tripwires.politeness.action=warn",
    ]  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--python", type=Path, help="the engine's Python (default: VLLM_PYTHON, or .venv-vllm's)")
    parser.add_argument("--rounds", type=int, default=5, help="times each side answers (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of stage 3 with each variant (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=15, help="of 64 samples each (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="scratch folder (default: beside --out, removed at the end)")
    return parser.parse_args()


def engine_python(given: Path | None) -> Path:
    """The engine's Python. Raises SystemExit where there is none."""
    python = given or Path(os.environ.get("VLLM_PYTHON") or ROOT / ".venv-vllm" / "bin" / "python")
    if not python.is_file():
        raise SystemExit(f"{python} is not there: run make test-vllm once, or give --python ENV/bin/python")
    return python.absolute()


def main() -> None:
    options = parse()
    python = engine_python(options.python)
    work = scratch(options)
    start = prepare(work)
    say("tokens/s of both backends")
    figures, details = speed(start, python, work, options.rounds)
    say(f"stage 3, {options.iterations} iterations of {BATCH} samples")
    learned, runs = learning(start, python, work, options.iterations, options.seeds)
    write(options.out, {**figures, **learned, **details, **runs})
    drop_scratch(options, work)


if __name__ == "__main__":
    main()
