"""The stages: name, script and configuration class. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf.errors import ConfigError

if TYPE_CHECKING:
    from rlhf.config.schema import StageConfig


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; `step` is the name of its script without the suffix."""

    name: str
    step: str

    @property
    def script(self) -> str:
        """File name in scripts/."""
        return f"{self.step}.py"

    @property
    def config(self) -> type[StageConfig]:
        """The class of the stage's configuration."""
        from rlhf.config import ppo, schema

        classes: dict[str, type[StageConfig]] = {
            "sft": schema.SftConfig,
            "reward": schema.RewardConfig,
            "ppo": ppo.PpoConfig,
            "dpo": schema.DpoConfig,
        }
        return classes[self.name]


STAGES: dict[str, Stage] = {
    "sft": Stage("sft", "step1_sft"),
    "reward": Stage("reward", "step2_reward"),
    "ppo": Stage("ppo", "step3_ppo"),
    "dpo": Stage("dpo", "dpo"),
}
CHAIN = ("sft", "reward", "ppo")  # the stages that build on one another; dpo stands for the last two


def stage_named(name: str) -> Stage:
    """A stage by its name or the name of its script. Raises ConfigError where there is none."""
    found = next((stage for stage in STAGES.values() if name in (stage.name, stage.step)), None)
    if found is None:
        raise ConfigError(f"no stage {name!r}", expected=f"one of {', '.join(STAGES)}", fix="name one of them")
    return found


def stage_of_file(path: str) -> str | None:
    """The stage that a configuration file is named after: `configs/demo/ppo.yaml` is of ppo."""
    name = path.rsplit("/", 1)[-1].partition(".")[0]
    return name if name in STAGES else None


def stage_of(config: str, given: str | None) -> str:
    """The stage given by --stage, or that of the file's name. Raises ConfigError where neither names one."""
    stage = given or stage_of_file(config)
    if stage is None:
        raise ConfigError(
            f"{config} is not named after a stage", where="--stage", fix="add --stage sft, reward, ppo or dpo"
        )
    return stage
