"""The table of stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, RewardConfig, SftConfig
from rlhf.config.stages import CHAIN, STAGES, stage_named, stage_of, stage_of_file
from rlhf.errors import ConfigError

SCRIPTS = Path(__file__).parents[3] / "scripts"


def test_every_stage_has_its_script_and_its_configuration() -> None:
    assert [(SCRIPTS / stage.script).is_file() for stage in STAGES.values()] == [True] * 4
    assert [stage.config for stage in STAGES.values()] == [SftConfig, RewardConfig, PpoConfig, DpoConfig]
    assert {path.name for path in SCRIPTS.glob("*.py")} == {stage.script for stage in STAGES.values()}


def test_a_stage_is_named_by_itself_or_by_its_script() -> None:
    assert stage_named("ppo") is stage_named("step3_ppo") is STAGES["ppo"]
    assert STAGES["dpo"].script == "dpo.py"
    assert set(STAGES) - set(CHAIN) == {"dpo"}
    with pytest.raises(ConfigError, match=r"no stage 'orpo'[\s\S]*sft, reward, ppo, dpo"):
        stage_named("orpo")


def test_a_file_is_of_the_stage_in_its_name() -> None:
    assert [stage_of_file(path) for path in ("a/sft.yaml", "reward.small.yaml", "my-ppo.yaml")] == [
        "sft",
        "reward",
        None,
    ]
    assert stage_of("a/sft.yaml", None) == "sft"
    assert stage_of("a/sft.yaml", "ppo") == "ppo"
    with pytest.raises(ConfigError, match=r"--stage: my\.yaml is not named after a stage"):
        stage_of("my.yaml", None)
