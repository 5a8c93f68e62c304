"""Stage 3 against TRL's PPOTrainer: samples a second on the same work, where the time goes, and memory.

python benchmarks/ppo.py --data DIR --out ppo.json [--rounds 5] [--parts b8 b64 reuse reuse_b8 memory]

Policy, reference, reward and value are four models of the same GPT-NeoX of 7.3 M parameters in float32; one iteration
draws an answer of at most 128 tokens to each prompt and learns from all of them in one epoch of one minibatch. Two
settings: 8 prompts with exactly 128 new tokens each (EOS can not be sampled), and 64 prompts with EOS as the policy
learnt it. Every round has a seed of its own: a chance difference between the answers' mean lengths does not repeat.
A side's speed is samples over the wall time from the end of its first iteration to the end of its last. Ours is
`scripts/step3_ppo.py` under the `deepspeed` launcher at ZeRO 0 with its metrics on. Parts are timed in runs of their
own. Reuse: our iterations after the first epoch with answers that start from the last ones to the same prompts
(`rollout.reuse`), and without, on both settings. Memory: a shared backbone of 111 M parameters over four models of that
size, both with LoRA.
"""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import TRL_PPO, versions
from harness import ROOT, SIDES, Side, alternate, arguments, deepspeed, drop_scratch, ratio, run, say, scratch, write
from material import NOT_THE_DEMOS, TINY, Base, make_base
from ppo_material import Prompts, Stages, make_prompts, silenced

from rlhf.data.sources import DataSource
from rlhf.demo.options import TinySize

NEW_TOKENS, MAX_PROMPT, LR, SEED = 128, 128, 1e-6, 17
HUNDRED = TinySize(hidden=768, layers=14, heads=12, vocabulary=8000, epochs=0.0002)  # 111 M parameters, for memory
OVERHEAD = "other"
PARTS = ("b8", "b64", "reuse", "reuse_b8", "memory")
REUSE_LR = 1e-5  # the default of train.lr: a policy that learns too little keeps its answers, and reuse looks better
REUSE_EPOCHS = 4


@dataclass
class Bench:
    """One setting in a scratch folder. `micro` is the micro-batch TRL is quickest with."""

    name: str
    work: Path
    policy: Path
    reward: Path
    prompts: Prompts
    iterations: int
    python: Path
    micro: int

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self.log = self.work / "sides.log"

    def words(self, folder: Path, seed: int = SEED) -> list[str]:
        """The shipped script's arguments."""
        count = self.prompts.num_rows
        return [
            "--config", str(ROOT / "configs" / "demo" / "ppo.yaml"), f"run.dir={folder}", f"run.seed={seed}",
            *NOT_THE_DEMOS["ppo"],
            f"actor.path={self.policy}", f"reward.path={self.reward}", "reward.min_accuracy=null",
            f"data.train={self.prompts.records}", "data.eval=[]", f"train.epochs={self.iterations}",
            f"train.batch_size={count}", f"train.lr={LR}", f"critic.lr={LR}", "train.warmup_steps=0",
            f"ppo.rollout_size={count}", "ppo.epochs=1", "ppo.kl_coefficient=0.05", "sampling.batch_size=64",
            f"sampling.max_new_tokens={NEW_TOKENS}", f"sampling.max_prompt_tokens={MAX_PROMPT}",
            "log.samples_every_steps=null", "checkpoint.every_steps=100000",
        ]  # fmt: skip

    def ours(self, number: int) -> dict[str, Any]:
        """The shipped script, from its metrics."""
        lines = self.metrics(number)
        return self._figures(
            [line["time/wall_s"] for line in lines], [line["rollout/response_tokens"] for line in lines]
        )

    def metrics(self, number: int, *more: str) -> list[dict[str, Any]]:
        """What the shipped script logs of each iteration; `more` are overrides."""
        folder = self.work / "ours"
        shutil.rmtree(folder, ignore_errors=True)
        run(deepspeed(ROOT / "scripts" / "step3_ppo.py", *self.words(folder, SEED + number), *more), self.log)
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    def trl(self, number: int) -> dict[str, Any]:
        found = self._trl_run(SEED + number, parts=False)
        return self._figures(found["seconds"], found["response_tokens"])

    def parts(self) -> dict[str, dict[str, float]]:
        """Seconds of an iteration by part, the median over all but the first; in a run of its own."""
        result, folder = self.work / "ours-parts.json", self.work / "ours-parts"
        shutil.rmtree(folder, ignore_errors=True)
        run(deepspeed(SIDES / "ours_parts.py", str(result), *self.words(folder)), self.log)
        found = {"ours": json.loads(result.read_text())["parts"], "trl": self._trl_run(SEED, parts=True)["parts"]}
        return {side: _medians(rows[1:]) for side, rows in found.items()}

    def sides(self) -> list[Side]:
        return [Side("ours", self.ours), Side("trl", self.trl)]

    def _trl_run(self, seed: int, *, parts: bool) -> dict[str, Any]:
        result, spec = self.work / "trl.json", self.work / "trl-spec.json"
        count = self.prompts.num_rows
        content = {
            "base": str(self.policy), "reward": str(self.reward), "prompts": str(self.prompts.ids), "batch": count,
            "micro": min(self.micro, count), "new_tokens": NEW_TOKENS, "steps": self.iterations, "epochs": 1,
            "kl_coefficient": 0.05, "missing_eos_penalty": 1.0, "parts": parts,
            "runs": [{"seed": seed, "lr": LR, "result": str(result)}],
        }  # fmt: skip
        spec.write_text(json.dumps(content))
        run([str(self.python), str(SIDES / "trl_ppo.py"), str(spec)], self.log)
        return json.loads(result.read_text())

    def _figures(self, ends: list[float], lengths: list[float]) -> dict[str, Any]:
        seconds = ends[-1] - ends[0]
        samples = self.prompts.num_rows * (len(ends) - 1)
        return {
            "samples_per_s": samples / seconds,
            "seconds": seconds,
            "num_iterations": len(ends) - 1,
            "mean_answer_tokens": statistics.mean(lengths[1:]),
        }


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def overhead_share(parts: dict[str, float]) -> float:
    """Share of an iteration that is no generation and no needed forward, backward or update."""
    return parts[OVERHEAD] / parts["total"]


def memory(data: Path, work: Path, prompts: Prompts) -> dict[str, dict[str, float]]:
    """Peaks above the imports in MiB: until the last iteration ended, and of the whole run with its export."""
    base = make_base(data, work / "base", HUNDRED)
    stages = Stages(data, base, work)
    lora = ("model.lora.rank=8", "run.max_steps=2")
    sft = stages.sft(16, *lora)
    reward = stages.reward(base.path, 16, *lora)
    roles = {"separate": (sft / "model", reward / "model"), "shared": (sft, reward)}
    found = {}
    for name, (actor, scorer) in roles.items():
        result, folder = work / f"{name}.json", work / "run"
        bench = Bench(name, work, actor, scorer, prompts, 2, Path(), 1)
        shutil.rmtree(folder, ignore_errors=True)
        # One sequence a micro-batch: what one sets where memory is short, and activations do not hide the weights.
        more = ["model.lora.rank=8", f"ppo.roles={name}", "sampling.max_new_tokens=32", "train.micro_tokens=160"]
        command = deepspeed(SIDES / "ours_memory.py", str(result), "ppo", *bench.words(folder), *more)
        run(command, bench.log)
        found[name] = json.loads(result.read_text())
    return found


def material(data: Path, work: Path, base: Base) -> tuple[Path, Path, Path]:
    """Models that all settings start from: a policy that cannot end its answers, one that can, and the reward."""
    stages = Stages(data, base, work)
    policy = stages.sft(1600, "train.lr=1e-3") / "model"
    reward = stages.reward(policy, 64, "train.lr=2e-4") / "model"
    eos, pad = base.tokenizer.eos_id, base.tokenizer.pad_id
    # A PAD that TRL samples ends its answer, so neither side may sample one.
    return silenced(policy, work / "endless", (eos, pad)), silenced(policy, work / "natural", (pad,)), reward


def settings(data: Path, work: Path, base: Base, python: Path) -> dict[str, Bench]:
    """The settings against TRL, and that of reuse, from one policy and reward."""
    endless, natural, reward = material(data, work, base)
    source = [DataSource(str(data / "prompts_train.jsonl"))]
    few, many = (
        make_prompts(source, base, work, count=count, max_tokens=MAX_PROMPT, name=f"prompts-{count}")
        for count in (8, 64)
    )
    return {
        "b8": Bench("b8", work / "b8", endless, reward, few, 8, python, micro=8),
        "b64": Bench("b64", work / "b64", natural, reward, many, 4, python, micro=8),
        "reuse": Bench("reuse", work / "reuse", natural, reward, many, REUSE_EPOCHS, python, micro=8),
        "reuse_b8": Bench("reuse_b8", work / "reuse_b8", endless, reward, few, REUSE_EPOCHS, python, micro=8),
    }


def against_trl(bench: Bench, rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures of one setting, and their details."""
    say(f"{bench.name}: {bench.prompts.num_rows} prompts of {bench.prompts.mean_tokens:.0f} tokens on average")
    found = alternate(bench.sides(), rounds)
    parts = bench.parts()
    for side in ("ours", "trl"):
        tokens = statistics.mean(each[side]["mean_answer_tokens"] for each in found)
        say(f"  {side}: {tokens:.1f} tokens an answer; seconds an iteration: {_shown(parts[side])}")
    figures = {
        f"ppo_ratio_{bench.name}": ratio(found, "ours", "trl", "samples_per_s"),
        f"overhead_share_{bench.name}": overhead_share(parts["ours"]),
    }
    return figures, {f"rounds_{bench.name}": found, f"parts_s_{bench.name}": parts}


def reuse(bench: Bench, rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Iterations per second with reuse over without, in the epochs after the first; one iteration is an epoch."""

    def side(name: str, *more: str) -> Side:
        def measure(number: int) -> dict[str, Any]:
            lines = bench.metrics(number, f"train.lr={REUSE_LR}", *more)[1:]
            means = {each: statistics.mean(line[each] for line in lines) for each in lines[0] if each != "step"}
            found = {"iterations_per_s": 1 / means["time/step_s"], "rollout_s": means["time/rollout_s"]}
            found["mean_answer_tokens"] = means["rollout/response_tokens"]
            return found | {"accepted_share": means.get("rollout/accepted_share", 0.0)}

        return Side(name, measure)

    say(f"{bench.name}: {bench.prompts.num_rows} prompts in {REUSE_EPOCHS} epochs, learning rate {REUSE_LR:g}")
    found = alternate([side("anew"), side("reuse", "rollout.reuse=true")], rounds)
    suffix = bench.name.removeprefix("reuse")
    figures = {
        f"ppo_reuse_ratio{suffix}": ratio(found, "reuse", "anew", "iterations_per_s"),
        f"ppo_reuse_rollout_ratio{suffix}": 1 / ratio(found, "reuse", "anew", "rollout_s"),
        f"ppo_reuse_accepted_share{suffix}": statistics.median(each["reuse"]["accepted_share"] for each in found),
    }
    return figures, {f"rounds_{bench.name}": found}


def shared_memory(data: Path, work: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Peak memory of a shared backbone over that of four models."""
    say("memory, 111 M parameters")
    large = work / "large"
    large.mkdir(exist_ok=True)
    wide = make_base(data, large / "base", HUNDRED)
    source = [DataSource(str(data / "prompts_train.jsonl"))]
    prompts = make_prompts(source, wide, large, count=8, max_tokens=64, name="prompts-memory")
    peaks = memory(data, large, prompts)
    figures = {
        "shared_memory_ratio": peaks["shared"]["training_mib"] / peaks["separate"]["training_mib"],
        "shared_memory_ratio_with_export": peaks["shared"]["peak_mib"] / peaks["separate"]["peak_mib"],
    }
    return figures, {"memory_mib": peaks}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    options = parser.parse_args()
    work = scratch(options)
    data, compared = options.data.resolve(), [name for name in ("b8", "b64") if name in options.parts]
    python = TRL_PPO.python() if compared else Path()
    benches = settings(data, work, make_base(data, work / "base", TINY), python)
    found: dict[str, Any] = {}
    details: dict[str, Any] = {
        "versions": versions(python) if compared else {},
        "trl_micro_batch": {name: benches[name].micro for name in compared},
        "prompt_tokens": {name: benches[name].prompts.mean_tokens for name in options.parts if name in benches},
        "reuse": {"lr": REUSE_LR, "epochs": REUSE_EPOCHS},
    }
    for name in options.parts:
        if name == "memory":
            figures, more = shared_memory(data, work)
        else:
            figures, more = (against_trl if name in compared else reuse)(benches[name], options.rounds)
        found, details = found | figures, details | more
    if compared:
        found["overhead_share"] = max(found[f"overhead_share_{name}"] for name in compared)
    write(options.out, {**found, **details})
    drop_scratch(options, work)


def _shown(parts: dict[str, float]) -> str:
    return "  ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())


if __name__ == "__main__":
    main()
