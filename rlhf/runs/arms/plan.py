"""What `rlhf arms` starts: the folders, the words of every stage, the draw of best-of-n."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from rlhf.artifacts.files import read_json
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.arms import ArmsConfig, ArmSection, ScorerSection
from rlhf.curate.output import manifest_path
from rlhf.curate.split.command import SplitOptions, split_files
from rlhf.data.embedded import data_path
from rlhf.data.readers import locate, sha256_of
from rlhf.errors import ArtifactError, TrainingError
from rlhf.train.run.chain import ChainedStage
from rlhf.train.run.start import start_command

TRIAL_PROMPTS = 32  # of best-of-n, where every stage is cut short


@dataclass(frozen=True, slots=True)
class ArmsPlan:
    """The parts of one comparison, by the folder that holds them."""

    config: ArmsConfig
    out: Path

    @property
    def preferences(self) -> Path:
        """The rankings that the arms, and the reward model they share, learn from."""
        return self._divided("train")

    @property
    def dev(self) -> list[str]:
        """Rankings to choose checkpoints by; none where the configuration holds none out."""
        return [str(self._divided("dev"))] if self.config.preferences.dev else []

    @property
    def judge_data(self) -> str:
        """The rankings that the judge alone learns from."""
        return self.config.judge.data or str(self._divided("test"))

    @property
    def prompts(self) -> str:
        """The prompts that arms answer in training."""
        return self.config.prompts or str(self.preferences)

    @property
    def reward(self) -> str:
        """The reward model that arms learn from."""
        return self.config.reward.model or str(self.out / "reward" / "model")

    @property
    def judge(self) -> str:
        """The reward model that no arm saw."""
        return self.config.judge.model or str(self.out / "judge" / "model")

    def drawn(self, arm: ArmSection) -> Path:
        """The demonstrations of a best-of-n arm."""
        return self.out / "data" / f"{arm.title}.jsonl"

    def _divided(self, split: str) -> Path:
        stem = Path(data_path(self.config.preferences.path)).stem
        return self.out / "data" / f"{stem}_{split}.jsonl"

    @property
    def settings_file(self) -> Path:
        """The configuration that the runs in the folder were begun with."""
        return self.out / "arms.yaml"

    def divide(self) -> None:
        """Divides the preferences by prompt into those of the arms, those to choose checkpoints by and the judge's.

        Raises: ArtifactError where training has begun and the file is another now; DataError for a file that cannot be
            read.
        """
        path, folder = data_path(self.config.preferences.path), self.out / "data"
        judge = self.config.preferences.judge if self.config.judge_has_share else 0.0
        dev = self.config.preferences.dev
        shares = {"train": 1 - dev - judge, "dev": dev, "test": judge}
        options = SplitOptions((path,), folder, shares, seed=self.config.seed, threshold=1.0)
        manifest = manifest_path(self.preferences)
        if manifest.is_file():
            held = read_json(manifest)
            same_file = held["inputs"][0]["sha256"] == sha256_of(locate(path))
            if same_file and held["options"] == {**options.recorded(), "split": "train"}:
                return
            if self.settings_file.is_file():
                raise ArtifactError(
                    f"{path} has changed since it was divided into {folder}",
                    where="preferences.path",
                    fix="choose another --out",
                )
            shutil.rmtree(folder)
        split_files(options)

    def scorers(self) -> list[ChainedStage]:
        """The reward models that are trained here: that of the arms first."""
        found = []
        if self.config.needs_reward and not self.config.reward.model:
            found.append(self._scorer("reward", self.config.reward, str(self.preferences)))
        if not self.config.judge.model:
            found.append(self._scorer("judge", self.config.judge, self.judge_data))
        return found

    def _scorer(self, name: str, section: ScorerSection, train: str) -> ChainedStage:
        words = [f"model.path={self.config.sft}", *_data(train, self.dev), *section.set]
        return self._stage(name, "reward", section.config, words)

    def stage(self, arm: ArmSection) -> ChainedStage:
        """The stage that trains an arm."""
        sft = self.config.sft
        if arm.kind == "best_of_n":  # no held-out rows: those of the preferences are not answers of this model
            words = [f"model.path={sft}", *_data(str(self.drawn(arm)), [])]
        elif arm.kind == "dpo":
            words = [f"model.path={sft}", *_data(str(self.preferences), self.dev)]
        else:
            words = [f"actor.path={sft}", 'reference.path=""', f"reward.path={self.reward}"]  # the actor's start
            words += _data(self.prompts, self.dev)
            words += ["ppo.estimator=grpo"] if arm.kind == "grpo" else []
            words += ["reward.min_accuracy=null"] if self.config.max_steps else []
        return self._stage(arm.title, arm.stage, arm.config, [*words, *arm.set])

    def _stage(self, name: str, stage: str, config: str, words: list[str]) -> ChainedStage:
        first = [f"run.dir={self.out / name}", f"run.seed={self.config.seed}"]
        last = [f"run.max_steps={self.config.max_steps}"] if self.config.max_steps else []
        return ChainedStage(name, stage, config, (*first, *words, *last), self.out / name, self.config.ranks)

    def stages(self) -> list[ChainedStage]:
        """Every stage, in the order they are started."""
        return [*self.scorers(), *(self.stage(arm) for arm in self.config.arms)]

    def made_data(self) -> list[str]:
        """Files that a part writes for a later one."""
        return [str(self.drawn(arm)) for arm in self.config.arms if arm.kind == "best_of_n"]

    def sample_words(self, arm: ArmSection) -> list[str]:
        """The command that draws the answers of a best-of-n arm and keeps the best."""
        sampling = arm.sampling
        limit = self.num_prompts_limit(arm)
        words = ["data", "sample", "--model", self.config.sft, "--prompts", self.prompts, "--out", str(self.drawn(arm))]
        words += ["--k", str(arm.k), "--score", self.reward, "--keep", "best", "--seed", str(self.config.seed)]
        words += [] if limit is None else ["--limit", str(limit)]
        words += ["--temperature", str(sampling.temperature), "--top-p", str(sampling.top_p)]
        words += ["--top-k", str(sampling.top_k), "--max-new-tokens", str(sampling.max_new_tokens)]
        words += ["--max-prompt-tokens", str(sampling.max_prompt_tokens)]
        return words + ([] if sampling.batch_size is None else ["--batch-size", str(sampling.batch_size)])

    def num_prompts_limit(self, arm: ArmSection) -> int | None:
        """The most prompts that a best-of-n arm answers; None for all."""
        if self.config.max_steps:
            return min(arm.max_prompts or TRIAL_PROMPTS, TRIAL_PROMPTS)
        return arm.max_prompts

    def draw(self, arm: ArmSection) -> None:
        """Draws the demonstrations of a best-of-n arm. Raises: TrainingError when the command fails."""
        status = start_command(self.sample_words(arm), ranks=self.config.ranks)
        if status or not self.drawn(arm).is_file():
            raise TrainingError(f"drawing the answers of {arm.title} ended with status {status}", where=arm.title)

    def is_drawn(self, arm: ArmSection) -> bool:
        """Whether the demonstrations are there, written whole."""
        return self.drawn(arm).is_file() and manifest_path(self.drawn(arm)).is_file()

    def ended(self, arm: ArmSection) -> tuple[str, str]:
        """What became of an arm's run, and why: finished, preempted, failed, or "" where it was not started."""
        state = RunFolder(self.out / arm.title).state()
        return str(state.get("status", "")), str(state.get("reason", ""))


def _data(train: str, dev: list[str]) -> list[str]:
    return [f"data.train={_list([train])}", f"data.eval={_list(dev)}"]


def _list(paths: list[str]) -> str:
    return json.dumps(paths, ensure_ascii=False)
