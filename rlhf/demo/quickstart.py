"""All stages in one command: a tiny base model, SFT, a reward model, PPO, and a measurement before and after.

Each stage is started as a person would start it, under the `deepspeed` launcher. Finished stages of an earlier
command in the same folder are kept; the missing ones are run.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import read_json, write_json
from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.reward_sources import RewardRole
from rlhf.config.stages import CHAIN
from rlhf.demo.options import QuickstartOptions, TinySize
from rlhf.demo.processes import demo_ranks
from rlhf.errors import ArtifactError, DataError
from rlhf.evaluate.reward.gate import read_card, refusal
from rlhf.train.run.chain import ChainedStage, PartTimes, check_chain

OWN_DATA = {"sft": "sft", "reward": "preference", "ppo": "prompts"}
OWN_ROWS = 2000  # of each training file: enough to see each stage learn, within minutes on 2 cores
OWN_OVERRIDES: dict[str, tuple[str, ...]] = {
    "sft": ("data.on_bad_row=skip", "data.max_length=512", "train.epochs=1", "train.lr=3.0e-4", "eval.max_rows=100"),
    "reward": ("data.on_bad_row=skip", "data.max_length=512", "train.lr=2.0e-4"),
    "ppo": (
        "data.on_bad_row=skip",
        "reward.min_accuracy=null",
        "run.max_steps=12",
        "ppo.rollout_size=128",
        "ppo.epochs=2",
        "train.lr=3.0e-4",
        "critic.lr=3.0e-4",
        "sampling.max_new_tokens=64",
        "sampling.max_prompt_tokens=256",
        "train.warmup_steps=2",
    ),
}
BASE = TinySize(vocabulary=4000, epochs=0.5, batch_size=8)  # of the demo's own data; every word is one token
OWN_BASE = TinySize(epochs=0.5, lr=1e-3)
SHORT_EPOCHS = 0.02  # passes over the text of the base model where stages are cut short
SHORT_OVERRIDES: dict[str, tuple[str, ...]] = {"sft": (), "reward": (), "ppo": ("reward.min_accuracy=null",)}
# One low-rank adapter per role on one base model. Ranks and rates are for the tiny model, whose matrices are small.
LORA = ("model.lora.rank=32", "model.lora.alpha=64")
LORA_OVERRIDES: dict[str, tuple[str, ...]] = {
    "sft": (*LORA, "train.lr=3.0e-3"),
    "reward": (*LORA, "train.lr=2.0e-3", "data.template=polyglot-chat"),
    "ppo": ("ppo.roles=shared", "train.lr=1.5e-3", "critic.lr=1.5e-3"),
}
# Of each prompt GRPO draws four answers at once, and sees it a quarter as often: as many answers in all.
ESTIMATOR_OVERRIDES: dict[str, tuple[str, ...]] = {
    "gae": ("ppo.estimator=gae",),
    "grpo": ("ppo.estimator=grpo", "train.epochs=1.5"),
}


@dataclass(slots=True)
class Quickstart(QuickstartOptions):
    """One quickstart, and how long each part took: by the clock, and of all processors together."""

    times: PartTimes = field(init=False)
    _settings: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.times = PartTimes(self._write_settings)

    def run(self) -> dict[str, Any]:
        """Runs the missing stages and returns the summary, which is also written to out/summary.json."""
        self._check()
        from rlhf.demo.measure import measure_policy, world_summary  # torch
        from rlhf.demo.measure_reward import reward_summary
        from rlhf.demo.printed import print_summary

        base = self.out / "base"
        self.times.run("base", base, (base / "model" / "config.json").is_file(), self._base)
        for stage in map(self.stage, CHAIN):
            if stage.name == "ppo" and self.data and not stage.is_finished:
                self._warn_of_a_weak_reward()
            self.times.run(stage.name, stage.folder, stage.is_finished, stage.run)
        self.times.forget("measure")
        with self.times.timing("measure"):
            policies, answers = measure_policy(self.out, load_config(PpoConfig, self.out / "ppo" / "config.yaml"))
            summary: dict[str, Any] = {
                "settings": self._settings,
                "sft": sft_summary(self.out / "sft"),
                "reward": reward_summary(self.out / "reward" / "model", own=self.data is not None),
                "ppo": policies,
                **world_summary(answers, own=self.data is not None),
            }
        for key, parts in (("seconds", self.times.seconds), ("cpu_seconds", self.times.cpu_seconds)):
            summary[key] = round(sum(parts.values()), 1)
            summary[f"{key}_by_part"] = {name: round(value, 1) for name, value in parts.items()}
        write_json(self.out / "summary.json", summary)
        print_summary(summary, self.out)
        return summary

    def _check(self) -> None:
        """Refuses, before anything is trained, missing data and a folder of other settings."""
        names = [f"{name}_{part}.jsonl" for name in OWN_DATA.values() for part in ("train", "dev")]
        for file in [self.data / name for name in names] if self.data else []:
            if not file.is_file():
                expected = "DIR/{sft,preference,prompts}_{train,dev}.jsonl"
                raise DataError(f"no such file: {file}", where="--data", expected=expected)
        data = str(self.data) if self.data else None
        settings = {
            "data": data,
            "seed": self.seed,
            "lora": self.lora,
            "estimator": self.estimator,
            "max_steps": self.max_steps,
        }
        path = self.out / "quickstart.json"
        if path.is_file():
            known = {"lora": False, "estimator": "gae", "max_steps": None, **read_json(path)}
            if {key: known.get(key) for key in settings} != settings:
                raise ArtifactError(
                    f"{self.out} holds a quickstart with other settings: {known}",
                    where="--out",
                    fix="choose another --out",
                )
            self.times.seconds, self.times.cpu_seconds = known.get("seconds", {}), known.get("cpu_seconds", {})
        check_chain([self.stage(name) for name in CHAIN], earlier=[str(self.out / "base")])
        self.out.mkdir(parents=True, exist_ok=True)
        self._settings = settings
        self._write_settings()

    def _write_settings(self) -> None:
        taken = {"seconds": self.times.seconds, "cpu_seconds": self.times.cpu_seconds}
        write_json(self.out / "quickstart.json", {**self._settings, **taken})

    def _base(self) -> None:
        files = [str(self.data / "sft_train.jsonl")] if self.data else ["demo:answers_train"]
        size = OWN_BASE if self.data else BASE
        if self.max_steps is not None:
            size = replace(size, epochs=SHORT_EPOCHS)
        from rlhf.demo.tiny_base import make_tiny_base

        make_tiny_base(files, self.out / "base" / "model", size=size, seed=self.seed)

    def stage(self, name: str) -> ChainedStage:
        """A stage of the chain, as it is started."""
        words = tuple(self._words(name))
        return ChainedStage(name, name, f"recipe:demo/{name}", words, self.out / name, demo_ranks())

    def _words(self, stage: str) -> list[str]:
        words = [f"run.dir={self.out / stage}", f"run.seed={self.seed}", *self._models(stage), *self._data(stage)]
        words += ESTIMATOR_OVERRIDES[self.estimator] if stage == "ppo" else ()
        words += OWN_OVERRIDES[stage] if self.data else ()
        words += LORA_OVERRIDES[stage] if self.lora else ()
        return words + ([f"run.max_steps={self.max_steps}", *SHORT_OVERRIDES[stage]] if self.max_steps else [])

    def _warn_of_a_weak_reward(self) -> None:
        """Warns where PPO would refuse the reward model by default: a tour on 2,000 rows goes on to its end."""
        minimum = RewardRole().min_accuracy
        reason = refusal(read_card(self.out / "reward" / "model"), minimum) if minimum is not None else ""
        if reason:
            sys.stderr.write(
                f"warning: the reward model {reason}; PPO would refuse it (reward.min_accuracy = {minimum}), and "
                "its scores here are not reliable\n"
            )

    def _models(self, stage: str) -> list[str]:
        base, sft = f"model.path={self.out}/base/model", f"{self.out}/sft"
        model = "" if self.lora else "/model"  # of a LoRA run its folder is named, which holds the adapter too
        return {
            "sft": [base],
            "reward": [base, f"model.adapter={sft}"] if self.lora else [f"model.path={sft}/model"],
            "ppo": [f"actor.path={sft}{model}", f"reward.path={self.out}/reward{model}"],
        }[stage]

    def _data(self, stage: str) -> list[str]:
        if self.data is None:
            return []
        name = OWN_DATA[stage]
        train = json.dumps([{"path": f"{self.data / name}_train.jsonl", "limit": OWN_ROWS}], ensure_ascii=False)
        return [f"data.train={train}", f"data.eval={self.data / name}_dev.jsonl"]


def sft_summary(folder: Path) -> dict[str, float]:
    """Held-out loss before training and at its best, in nats per token."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["eval/loss"] for line in lines if "eval/loss" in line]
    return {"steps": lines[-1]["step"], "eval_loss_before": lines[0]["eval/loss_before"], "eval_loss": min(losses)}
