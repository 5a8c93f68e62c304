"""The configuration of `rlhf arms`: the shipped file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.config.arms import ArmsConfig
from rlhf.config.load import dump_values, load_config
from rlhf.errors import ConfigError

RECIPE = "recipe:demo/arms"


def test_the_shipped_file_has_every_arm() -> None:
    config = load_config(ArmsConfig, RECIPE)
    assert [arm.title for arm in config.arms] == ["best_of_n", "dpo", "ppo", "grpo"]
    assert [arm.stage for arm in config.arms] == ["sft", "dpo", "ppo", "ppo"]
    assert [arm.needs_reward for arm in config.arms] == [True, False, True, True]
    assert config.judge_has_share
    assert not load_config(ArmsConfig, RECIPE, ["judge.data=mine.jsonl"]).judge_has_share


def test_it_is_read_back_equal(tmp_path: Path) -> None:
    config = load_config(ArmsConfig, RECIPE, ["prompts=p.jsonl", "max_steps=2"])
    file = tmp_path / "arms.yaml"
    file.write_text(dump_values(config), encoding="utf-8")
    assert load_config(ArmsConfig, file) == config


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sft=''", "sft is empty"),
        ("held_out.prompts=''", "held_out.prompts is empty"),
        ("arms=[]", "arms is empty"),
        ("arms=[{kind: dpo, config: a.yaml}, {kind: ppo, name: dpo, config: b.yaml}]", "two arms are called dpo"),
        ("arms=[{kind: dpo}]", "the arm dpo has no config"),
        ("arms=[{kind: rlhf, config: a.yaml}]", "not one of the values allowed"),
        ("arms=[{kind: dpo, name: judge, config: a.yaml}]", "judge is the name of another folder"),
        ("arms=[{kind: dpo, name: a/b, config: a.yaml}]", "is no name of a folder"),
        ("arms.1.set=[run.dir=x]", "run.dir is the same for all arms"),
        ("arms.1.set=[data.train.0.path=x]", "data.train.0.path is the same for all arms"),
        ("arms.1.set=[fast]", "'fast' is not key=value"),
        ("reward.data=a.jsonl", "reward.data is of the judge alone"),
        ("reward.config=''", "reward has neither a model nor a config"),
        ("judge.model=runs/judge", "judge.model is a finished run: judge.config"),
        ("preferences.judge=0", "the judge has nothing to learn from"),
        ("preferences.judge=0.95", "leave no ranking to the arms"),
        ("train.lr=1", "no such key"),
        ("armz=[]", "did you mean arms?"),
    ],
)
def test_what_cannot_be_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(ArmsConfig, RECIPE, [word])
    assert said in str(refused.value)


def test_the_judge_is_not_the_reward_model_of_the_arms() -> None:
    words = ["reward={model: runs/reward, config: ''}", "judge={model: runs/reward/, config: ''}"]
    with pytest.raises(ConfigError, match="the reward model that the arms learn from"):
        load_config(ArmsConfig, RECIPE, words)


def test_without_an_arm_that_is_scored_no_reward_model_is_needed() -> None:
    words = ["arms=[{kind: dpo, config: recipe:demo/dpo}]", "reward.config=''"]
    assert not load_config(ArmsConfig, RECIPE, words).needs_reward
