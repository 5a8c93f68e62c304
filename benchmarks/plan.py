"""`rlhf plan` against the memory that runs really take: twelve settings on the CPU, predicted and measured.

python benchmarks/plan.py --out plan.json

Each setting is a shipped stage under the `deepspeed` launcher in float32, on random GPT-NeoX models of 97 and 351
million parameters with Polyglot-ko's vocabulary, on rows that fill every packed row. Measured is a rank's peak resident
memory above its imports until the last step was logged; the error is |predicted - measured| / measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ROOT, SIDES, drop_scratch, free_port, run, say, scratch, write

sys.path.insert(0, str(SIDES))
from plan_material import Material

from rlhf.config.load import load_config
from rlhf.config.stages import STAGES
from rlhf.plan.roles import plan_memory, stage_shapes
from rlhf.plan.states import Placement

SCRIPT = SIDES / "plan_memory.py"
MIB = 2**20


@dataclass(frozen=True)
class Setting:
    """One run: a stage, a model, a ZeRO stage, ranks, and what else is set."""

    name: str
    stage: str
    size: str
    zero: int
    ranks: int = 1
    lora: bool = False
    words: Sequence[str] = field(default_factory=tuple)
    actor: str = ""
    reward: str = ""


SETTINGS = (
    Setting("sft-100M-z0", "sft", "100M", 0, words=("train.batch_size=8", "train.micro_tokens=1024")),
    Setting("sft-350M-z1", "sft", "350M", 1, words=("train.batch_size=4", "train.micro_tokens=512")),
    Setting("sft-350M-z2-lora", "sft", "350M", 2, lora=True, words=("train.batch_size=2", "train.micro_tokens=512")),
    Setting(
        "sft-100M-z3", "sft", "100M", 3,
        words=("train.batch_size=8", "train.micro_tokens=1024", "model.gradient_checkpointing=true"),
    ),
    Setting("reward-350M-z2", "reward", "350M", 2, words=("train.batch_size=1", "train.micro_tokens=512")),
    Setting(
        "reward-350M-z0-lora", "reward", "350M", 0, lora=True, words=("train.batch_size=1", "train.micro_tokens=512")
    ),
    Setting(
        "reward-100M-z1-2ranks", "reward", "100M", 1, ranks=2, words=("train.batch_size=4", "train.micro_tokens=1024")
    ),
    Setting(
        "reward-100M-z3-lora", "reward", "100M", 3, lora=True, words=("train.batch_size=2", "train.micro_tokens=1024")
    ),
    Setting("ppo-100M-z0", "ppo", "100M", 0, reward="reward-100M-z1-2ranks"),
    Setting("ppo-100M-z2-2ranks", "ppo", "100M", 2, ranks=2, reward="reward-100M-z1-2ranks"),
    Setting("ppo-100M-z3-lora", "ppo", "100M", 3, lora=True, reward="reward-100M-z1-2ranks"),
    Setting(
        "ppo-350M-z1-shared", "ppo", "350M", 1, lora=True, actor="sft-350M-z2-lora", reward="reward-350M-z0-lora",
        words=("ppo.roles=shared",),
    ),
)  # fmt: skip
ALIKE = (
    "train.lr=1e-5", "train.warmup_steps=0", "train.epochs=1", "checkpoint.every_steps=100000", "data.eval=[]",
    "log.samples_every_steps=null",
)  # fmt: skip
PPO = (
    "critic.lr=1e-5", "ppo.rollout_size=8", "ppo.epochs=1", "train.batch_size=8", "train.micro_tokens=512",
    "data.max_length=128", "sampling.max_prompt_tokens=96", "sampling.max_new_tokens=32", "sampling.batch_size=8",
    "reward.min_accuracy=null", "run.max_steps=2",
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """All settings in one scratch folder."""

    work: Path
    material: Material

    def words(self, setting: Setting) -> list[str]:
        """The stage's arguments."""
        words = [f"run.dir={self.work / setting.name}", f"deepspeed.zero_stage={setting.zero}", *ALIKE]
        if setting.lora:
            words.append("model.lora.rank=8")
        words += getattr(self, f"_{setting.stage}")(setting)
        return [*words, *setting.words]

    def _sft(self, setting: Setting) -> list[str]:
        return [
            f"model.path={self.material.model(setting.size)}", f"data.train={self.material.demonstrations()}",
            "data.template=polyglot-chat", "data.max_length=256", "run.max_steps=2",
        ]  # fmt: skip

    def _reward(self, setting: Setting) -> list[str]:
        return [
            f"model.path={self.material.model(setting.size)}", f"data.train={self.material.rankings()}",
            "data.template=polyglot-chat", "data.max_length=256", "data.max_answers=2", "run.max_steps=2",
        ]  # fmt: skip

    def _ppo(self, setting: Setting) -> list[str]:
        actor = self.work / setting.actor if setting.actor else self.material.model(setting.size)
        return [
            f"actor.path={actor}", f"reward.path={self.work / setting.reward}", "data.template=polyglot-chat",
            f"data.train={self.material.prompts()}", *PPO,
        ]  # fmt: skip

    def measure(self, setting: Setting) -> dict[str, Any]:
        """Runs it; the figures of rank 0 in MiB."""
        folder, result = self.work / setting.name, self.work / f"{setting.name}.json"
        shutil.rmtree(folder, ignore_errors=True)
        config = ROOT / "configs" / "demo" / f"{setting.stage}.yaml"
        launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", str(setting.ranks)]
        command = [*launcher, "--master_port", str(free_port()), str(SCRIPT), str(result), setting.stage]
        seconds = run([*command, "--config", str(config), *self.words(setting)], self.work / f"{setting.name}.log")
        shutil.rmtree(folder / "checkpoints")  # gigabytes that nothing reads
        return {**json.loads(Path(f"{result}.0").read_text()), "seconds": seconds}

    def predict(self, setting: Setting) -> dict[str, Any]:
        """The plan of the same arguments, in MiB."""
        path = ROOT / "configs" / "demo" / f"{setting.stage}.yaml"
        config = load_config(STAGES[setting.stage].config, path, self.words(setting))
        placement = Placement(setting.ranks, "cpu", config.model.dtype)
        plan = plan_memory(config, stage_shapes(config), placement)
        return {"predicted_mib": plan.peak / MIB, "phase": plan.largest}

    def compare(self, setting: Setting) -> dict[str, Any]:
        """One setting predicted, then measured."""
        predicted = self.predict(setting)
        measured = self.measure(setting)
        error = predicted["predicted_mib"] / measured["training_mib"] - 1
        peak = measured["training_mib"]
        say(f"{setting.name:24} measured {peak:7.0f} MiB, error {error:+.1%} ({predicted['phase']})")
        return {"name": setting.name, "error": error, **predicted, **measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--work", type=Path, help="scratch folder (default: beside --out, removed at the end)")
    options = parser.parse_args()
    work = scratch(options)
    bench = Bench(work, Material(work))
    found = [bench.compare(setting) for setting in SETTINGS]
    largest = max(abs(each["error"]) for each in found)
    write(options.out, {"max_error": largest, "settings": found})
    drop_scratch(options, work)


if __name__ == "__main__":
    main()
