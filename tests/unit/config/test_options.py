"""Keys that depend on one another, and the forms a value may be given in."""

from __future__ import annotations

import pytest

from rlhf.config.load import config_schema, load_config
from rlhf.config.schema import PpoConfig, RewardConfig, SftConfig, StageConfig
from rlhf.errors import ConfigError

FOUR_BIT = "model.quantize=4bit"


@pytest.mark.parametrize(
    ("model", "overrides", "problem", "fix"),
    [
        (SftConfig, ["model.lora.variant=dora", "deepspeed.zero_stage=3"], "length of every row", "ZeRO 0 to 2"),
        (PpoConfig, [FOUR_BIT], "needs model.lora", "model.lora.rank"),
        (RewardConfig, [FOUR_BIT, "model.lora.rank=2", "deepspeed.zero_stage=3"], "cannot partition", "ZeRO 0 to 2"),
        (SftConfig, ["eval.patience=2"], "data.eval is empty", "data.eval=FILE"),
        (RewardConfig, ["eval.patience=2"], "data.eval is empty", "data.eval=FILE"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    model: type[StageConfig], overrides: list[str], problem: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(model, None, overrides)
    assert problem in caught.value.problem
    assert fix in caught.value.fix
    assert overrides[0].replace("=", " = ") in caught.value.where


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        (SftConfig, ["model.lora.variant=dora", "deepspeed.zero_stage=2"]),
        (SftConfig, ["model.lora.variant=rslora", "deepspeed.zero_stage=3"]),
        (RewardConfig, [FOUR_BIT, "model.lora.rank=2", "deepspeed.zero_stage=2"]),
        (SftConfig, ["eval.patience=2", "data.eval=file.jsonl"]),
    ],
)
def test_what_works_is_accepted(model: type[StageConfig], overrides: list[str]) -> None:
    load_config(model, None, overrides)


def test_stage_3_has_no_patience() -> None:
    with pytest.raises(ConfigError, match="no such key"):
        load_config(PpoConfig, None, ["eval.patience=2"])


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.lr_groups=[{match: '(', scale: 2}]", "no regular expression"),
        ("train.lr_groups=[{match: head, scale: 0}]", "out of range"),
        ("train.ema_decay=1", "out of range"),
        ("train.neftune_alpha=-1", "out of range"),
    ],
)
def test_a_value_that_means_nothing_is_refused(override: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(SftConfig, None, [override])


@pytest.mark.parametrize(("stage", "section"), [("sft", "SftData"), ("reward", "RewardData"), ("ppo", "DataSection")])
@pytest.mark.parametrize("key", ["train", "eval"])
def test_the_schema_takes_every_form_of_sources_that_the_loader_takes(stage: str, section: str, key: str) -> None:
    node = config_schema(stage)["$defs"][section]["properties"][key]
    source = {"$ref": "#/$defs/SourceSection"}
    assert {"type": "string"} in node["anyOf"]
    assert source in node["anyOf"]
    assert {"type": "array", "items": {"anyOf": [{"type": "string"}, source]}} in node["anyOf"]
    for given in ("a", "[a, {path: b}]", "{path: a}", "null"):
        load_config(SftConfig, None, [f"data.{key}={given}"])


def test_the_schema_takes_one_target_or_a_list() -> None:
    options = config_schema("sft")["$defs"]["LoraSection"]["properties"]["targets"]["anyOf"]
    assert options == [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
    assert config_schema("reward")["$defs"]["RewardData"]["properties"]["demonstrations"]["anyOf"]
