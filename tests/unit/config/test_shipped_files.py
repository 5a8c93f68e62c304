"""Recipes by name, and the command that starts a stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.config.load import load_config
from rlhf.config.schema import SftConfig
from rlhf.config.shipped import RECIPES, SCRIPTS, config_file, recipe_names
from rlhf.config.stages import STAGES
from rlhf.errors import ConfigError
from rlhf.plan.names import models_of_runs
from rlhf.train.run import start

REPOSITORY = Path(__file__).parents[3]


def test_in_a_checkout_they_are_its_own_folders() -> None:
    assert (SCRIPTS, RECIPES) == (REPOSITORY / "scripts", REPOSITORY / "configs")
    assert all((SCRIPTS / stage.script).is_file() for stage in STAGES.values())
    assert {"demo/sft", "kullm-12.8b/ppo"} <= set(recipe_names())
    assert len(recipe_names()) == len(list(REPOSITORY.glob("configs/*/*.yaml")))


def test_a_recipe_is_named_with_or_without_its_ending() -> None:
    file = REPOSITORY / "configs" / "kullm-5.8b" / "sft.yaml"
    assert config_file("recipe:kullm-5.8b/sft") == config_file("recipe:kullm-5.8b/sft.yaml") == file
    assert config_file("configs/my.yaml") == Path("configs/my.yaml")
    assert load_config(SftConfig, "recipe:kullm-5.8b/sft") == load_config(SftConfig, file)
    assert models_of_runs("recipe:kullm-5.8b/ppo") == models_of_runs(file)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'demo/sfd'[\s\S]*did you mean recipe:demo/sft\?"):
        load_config(SftConfig, "recipe:demo/sfd")
    with pytest.raises(ConfigError, match="rlhf config recipes lists them"):
        config_file("recipe:../secret")


def test_a_file_may_be_laid_over_a_recipe() -> None:
    Path("my.yaml").write_text("base: recipe:demo/sft\ntrain: {lr: 0.5}\n", encoding="utf-8")
    config = load_config(SftConfig, "my.yaml")
    assert (config.train.lr, config.train.batch_size) == (0.5, 32)
    Path("my.yaml").write_text("base: [recipe:demo/sfd]\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_config(SftConfig, "my.yaml")
    assert refused.value.where == 'my.yaml:1  base = "recipe:demo/sfd"'


def test_the_command_starts_the_stage_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start_stage(stage: str, words: list[str], *, ranks: int | None) -> int:
        started.append((stage, words, ranks))
        return 75

    monkeypatch.setattr(start, "start_stage", start_stage)
    words = ["--config", "recipe:demo/sft", "train.lr=1e-4", "model.path=.", "--resume", "auto"]
    assert main(["train", "--ranks", "2", "sft", *words]) == 75
    assert main(["train", "sft", "--config", "recipe:demo/sft", "train.lrr=1"]) == 1  # refused before the launcher
    assert started == [("sft", words, 2)]


def test_the_command_lists_the_keys_of_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "reward", "--help"])
    assert stop.value.code == 0
    assert "  train.lr  (default" in capsys.readouterr().out
