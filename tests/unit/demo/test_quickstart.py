"""What a quickstart passes to its stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.stages import CHAIN
from rlhf.demo.quickstart import Quickstart


@pytest.mark.parametrize(("max_steps", "words"), [(None, []), (3, ["run.max_steps=3"])])
def test_every_stage_is_cut_short_where_that_is_asked(tmp_path: Path, max_steps: int | None, words: list[str]) -> None:
    """A reward model of so few steps is below the least accuracy, so stage 3 is told to take any."""
    stages = {name: Quickstart(out=tmp_path, max_steps=max_steps).stage(name) for name in CHAIN}
    for name, stage in stages.items():
        assert (stage.stage, stage.folder) == (name, tmp_path / name)
        assert [word for word in stage.words if word.startswith("run.max_steps")] == words
    assert ("reward.min_accuracy=null" in stages["ppo"].words) == (max_steps is not None)


@pytest.mark.parametrize(("cores", "ranks"), [(1, 1), (2, 2), (3, 2), (7, 4), (8, 8), (96, 8)])
def test_on_cpus_a_stage_has_a_process_per_core(monkeypatch: pytest.MonkeyPatch, cores: int, ranks: int) -> None:
    """And every batch of the recipes can be divided among them."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    stages = [Quickstart(out=Path("q")).stage(name) for name in CHAIN]
    assert {stage.ranks for stage in stages} == {ranks}
    assert all(stage.config().train.batch_size % ranks == 0 for stage in stages)


def test_on_gpus_the_launcher_counts_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Quickstart(out=Path("q")).stage("sft").ranks is None


def test_the_estimator_is_that_of_stage_3_alone(tmp_path: Path) -> None:
    words = {stage: Quickstart(out=tmp_path, estimator="grpo").stage(stage).words for stage in CHAIN}
    assert [stage for stage in CHAIN if "ppo.estimator=grpo" in words[stage]] == ["ppo"]
    assert "ppo.estimator=gae" in Quickstart(out=tmp_path).stage("ppo").words
    load_config(PpoConfig, "recipe:demo/ppo", words["ppo"])  # and the recipe allows it
