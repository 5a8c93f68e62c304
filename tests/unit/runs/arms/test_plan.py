"""What `rlhf arms` starts: every stage from the same model and data, and nothing of the judge's in any of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.cli import build_parser
from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import role_paths
from rlhf.config.schema import DpoConfig, RewardConfig, SftConfig
from rlhf.errors import ArtifactError
from tests.unit.runs.arms.conftest import plan


def prompts_of(path: str | Path) -> set[str]:
    return {json.loads(line)["prompt"] for line in Path(path).read_text(encoding="utf-8").splitlines()}


def test_no_prompt_of_the_judge_is_an_arms(tmp_path: Path, rankings: Path) -> None:
    made = plan(tmp_path / "out", rankings)
    made.divide()
    parts = [prompts_of(path) for path in (made.preferences, *made.dev, made.judge_data)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 50
    first = made.preferences.stat().st_mtime_ns
    made.divide()  # again: kept
    assert made.preferences.stat().st_mtime_ns == first
    again = plan(tmp_path / "out", rankings, "preferences.judge=0.2")  # nothing has begun: divided anew
    again.divide()
    assert 0 < len(prompts_of(again.judge_data)) < len(parts[-1])
    again.settings_file.touch()
    rankings.write_text(rankings.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with pytest.raises(ArtifactError, match="has changed since it was divided"):
        again.divide()


def test_a_judge_with_rankings_of_its_own_takes_no_share(tmp_path: Path, rankings: Path) -> None:
    made = plan(tmp_path / "out", rankings, "judge.data=other.jsonl")
    made.divide()
    assert made.judge_data == "other.jsonl"
    assert len(prompts_of(made.preferences) | prompts_of(made.dev[0])) == 50


def test_every_stage_starts_from_the_sft_model_and_the_same_data(tmp_path: Path, rankings: Path) -> None:
    made = plan(tmp_path / "out", rankings)
    reward, judge, best, dpo, ppo, grpo = (stage.config() for stage in made.stages())
    assert [stage.name for stage in made.stages()] == ["reward", "judge", "best_of_n", "dpo", "ppo", "grpo"]
    preferences, out = str(made.preferences), tmp_path / "out"
    assert isinstance(reward, RewardConfig)
    assert isinstance(judge, RewardConfig)
    assert isinstance(best, SftConfig)
    assert isinstance(dpo, DpoConfig)
    assert isinstance(ppo, PpoConfig)
    assert isinstance(grpo, PpoConfig)
    assert [each.data.train[0].path for each in (reward, dpo, ppo, grpo)] == [preferences] * 4
    assert judge.data.train[0].path == made.judge_data != preferences
    assert best.data.train[0].path == str(made.drawn(made.config.arms[0]))
    assert {each.model.path for each in (reward, judge, best, dpo)} == {"s/model"}
    assert {each.actor.path for each in (ppo, grpo)} == {"s/model"}
    assert {each.reward.path for each in (ppo, grpo)} == {str(out / "reward" / "model")}
    assert (ppo.ppo.estimator, grpo.ppo.estimator) == ("gae", "grpo")
    assert {each.run.seed for each in (reward, judge, best, dpo, ppo, grpo)} == {17}
    assert best.train.epochs == 3  # what the arm sets
    assert len({each.run.dir for each in (reward, judge, best, dpo, ppo, grpo)}) == 6


def test_the_reference_is_the_start_whatever_the_file_of_an_arm_says(tmp_path: Path, rankings: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("base: recipe:demo/ppo\nreference: {path: other}\n", encoding="utf-8")
    made = plan(tmp_path / "out", rankings, f"arms=[{{kind: ppo, config: {file}}}]")
    config = made.stage(made.config.arms[0]).config()
    assert isinstance(config, PpoConfig)
    assert role_paths(config).reference == "s/model"


def test_finished_reward_models_are_not_trained_again(tmp_path: Path, rankings: Path) -> None:
    words = ["reward={model: r/model, config: ''}", "judge={model: j/model, config: ''}"]
    made = plan(tmp_path / "out", rankings, *words)
    assert [stage.name for stage in made.stages()] == ["best_of_n", "dpo", "ppo", "grpo"]
    assert (made.reward, made.judge) == ("r/model", "j/model")
    assert "reward.path=r/model" in made.stage(made.config.arms[2]).words


def test_the_draw_is_a_command_that_parses(tmp_path: Path, rankings: Path) -> None:
    made = plan(tmp_path / "out", rankings)
    arm = made.config.arms[0]
    given = build_parser().parse_args(made.sample_words(arm))
    assert (given.k, given.limit, given.keep, given.temperature, given.max_new_tokens) == (8, 1000, "best", 1.0, 48)
    assert (given.score, given.out) == (made.reward, made.drawn(arm))
    short = plan(tmp_path / "out", rankings, "max_steps=2")
    assert build_parser().parse_args(short.sample_words(arm)).limit == 32


def test_a_comparison_that_is_only_tried_cuts_every_stage(tmp_path: Path, rankings: Path) -> None:
    made = plan(tmp_path / "out", rankings, "max_steps=2")
    assert {stage.config().run.max_steps for stage in made.stages()} == {2}
    assert "reward.min_accuracy=null" in made.stage(made.config.arms[2]).words
