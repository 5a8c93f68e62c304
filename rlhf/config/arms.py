"""The configuration of `rlhf arms`: what every arm starts from and learns from, the arms, and who judges them."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from rlhf.config.sections import Positive, SamplingSection, Section, Share

Kind = Literal["best_of_n", "dpo", "ppo", "grpo"]
STAGE_OF_KIND: dict[str, str] = {"best_of_n": "sft", "dpo": "dpo", "ppo": "ppo", "grpo": "ppo"}
SFT = "sft"  # the arm that nothing is done to
RESERVED = (SFT, "reward", "judge", "data", "judged")  # folders beside those of the arms
OWN_KEYS = re.compile(
    r"run\.(dir|seed|max_steps)|model\.path|(actor|reference|reward)\.path|data\.(train|eval|demonstrations)(\..*)?"
)  # of a stage: the command sets them


class StageWords(Section):
    """A stage's configuration and what is changed in it."""

    config: str = Field("", description="YAML file of the stage, or recipe:NAME")
    set: list[str] = Field(default_factory=list, description="key=value of the stage, over its file")

    @field_validator("set")
    @classmethod
    def _not_what_the_command_sets(cls, value: list[str]) -> list[str]:
        for word in value:
            key, sign, _ = word.partition("=")
            if not sign:
                raise ValueError(f"{word!r} is not key=value")
            if OWN_KEYS.fullmatch(key):
                raise ValueError(f"{key} is the same for all arms, so the command sets it; remove {word}")
        return value


class ArmSection(StageWords):
    """One way from the SFT model to a policy."""

    kind: Kind = Field(
        description="best_of_n: the best of k answers by the reward model as demonstrations for stage 1; dpo: straight "
        "from the preferences; ppo and grpo: stage 3 against the reward model, with a critic or with groups"
    )
    name: str = Field("", description="name in the report and of the run folder; empty: the kind")
    k: Positive = Field(8, description="best_of_n: answers drawn per prompt")
    max_prompts: Positive | None = Field(None, description="best_of_n: answer only the first prompts; null: all")
    sampling: SamplingSection = Field(SamplingSection(), description="best_of_n: how answers are drawn")

    @property
    def title(self) -> str:
        """The name, or the kind where there is none."""
        return self.name or self.kind

    @property
    def stage(self) -> str:
        """The stage that trains this arm."""
        return STAGE_OF_KIND[self.kind]

    @property
    def needs_reward(self) -> bool:
        """Whether it learns from scores of the reward model."""
        return self.kind != "dpo"

    @field_validator("name")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        if value and not re.fullmatch(r"[\w.+-]+", value):
            raise ValueError(f"{value!r} is no name of a folder; use letters, digits and . _ + -")
        if value in RESERVED:
            raise ValueError(f"{value} is the name of another folder of the command; choose another")
        return value

    @model_validator(mode="after")
    def _check_config(self) -> ArmSection:
        if not self.config:
            raise ValueError(f"the arm {self.title} has no config; set config=recipe:demo/{self.stage}, or a file")
        return self


class PreferencesSection(Section):
    """The rankings, and which of them nobody but the judge learns from."""

    path: str = Field("", description="rankings or pairs: JSONL, JSON, CSV or demo:NAME")
    dev: Share = Field(0.05, description="share of its prompts that is held out from training, to choose checkpoints")
    judge: Share = Field(0.3, description="share of its prompts whose rankings only the judge learns from")


class ScorerSection(StageWords):
    """A reward model: a finished run, or how to train one from the SFT model."""

    model: str = Field("", description="finished run of stage 2; empty: one is trained by `config`")
    data: str = Field(
        "", description="judge: rankings of its own that no arm learns from; empty: its share of the preferences"
    )


class HeldOutSection(Section):
    """The prompts that all arms answer, and how."""

    prompts: str = Field("", description="held-out prompts: JSONL, JSON, CSV or demo:NAME")
    limit: Positive | None = Field(None, description="use at most this many; null: all")
    samples: Positive = Field(2, description="answers to each prompt by each arm")
    sampling: SamplingSection = Field(SamplingSection(), description="how all arms answer")


class ArmsConfig(Section):
    """Several arms from one SFT model, judged on the same prompts."""

    sft: str = Field("", description="the SFT model that every arm starts from: run folder of stage 1, or its model/")
    seed: int = Field(17, ge=0, description="seed of every stage, of the preferences' division and of all answers")
    max_steps: Positive | None = Field(None, description="end every stage after this many steps, to try the command")
    ranks: Positive | None = Field(
        None, description="processes per stage; null leaves it to the launcher: every GPU, or one process on CPUs"
    )
    preferences: PreferencesSection = PreferencesSection()
    prompts: str = Field(
        "", description="prompts that best_of_n, ppo and grpo answer in training; empty: those of the preferences"
    )
    reward: ScorerSection = ScorerSection()
    judge: ScorerSection = ScorerSection()
    arms: list[ArmSection] = Field(default_factory=list, description="the arms, in the order they are trained")
    held_out: HeldOutSection = HeldOutSection()
    labels: str = Field(
        "", description="people's rankings of the arms' answers (OUT/label.jsonl, labelled by rlhf data label)"
    )

    @property
    def needs_reward(self) -> bool:
        """Whether some arm learns from scores."""
        return any(arm.needs_reward for arm in self.arms)

    @property
    def judge_has_share(self) -> bool:
        """Whether the judge learns from a share of the preferences."""
        return not self.judge.model and not self.judge.data

    @model_validator(mode="after")
    def _check_named(self) -> ArmsConfig:
        for key, value, what in (
            ("sft", self.sft, "a run folder of stage 1"),
            ("preferences.path", self.preferences.path, "a file of rankings"),
            ("held_out.prompts", self.held_out.prompts, "a file of prompts that nothing was trained on"),
        ):
            if not value:
                raise ValueError(f"{key} is empty; set it to {what}")
        titles = [arm.title for arm in self.arms]
        if not titles:
            raise ValueError("arms is empty; name one or more, such as [{kind: dpo, config: recipe:demo/dpo}]")
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(f"two arms are called {twice[0]}; give one a name of its own")
        return self

    @model_validator(mode="after")
    def _check_scorers(self) -> ArmsConfig:
        if self.reward.data:
            raise ValueError("reward.data is of the judge alone: the reward model learns from the arms' preferences")
        for key, scorer in (("reward", self.reward), ("judge", self.judge)):
            wanted = key == "judge" or self.needs_reward
            if wanted and not scorer.model and not scorer.config:
                raise ValueError(f"{key} has neither a model nor a config; set {key}.config=recipe:demo/reward")
            if scorer.model and (scorer.config or scorer.set or scorer.data):
                raise ValueError(f"{key}.model is a finished run: {key}.config, set and data have no meaning beside it")
        if self.judge.model and self.judge.model.rstrip("/") == self.reward.model.rstrip("/"):
            raise ValueError("judge.model is the reward model that the arms learn from; name another, or a config")
        if self.judge_has_share and not self.preferences.judge:
            raise ValueError("the judge has nothing to learn from; set preferences.judge=0.3, or judge.data=FILE")
        if self.preferences.dev + (self.preferences.judge if self.judge_has_share else 0) >= 1:
            raise ValueError("preferences.dev and preferences.judge leave no ranking to the arms; lower them")
        return self
