"""A stage starts only from runs that have finished, and PPO only from a reward model that passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.artifacts.files import write_json
from rlhf.cli import main
from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import RewardConfig
from rlhf.errors import ArtifactError
from rlhf.train.run.readiness import require_parents
from tests.support.run_folders import write_run


def reward_run(path: Path, *, low: float, high: float) -> Path:
    run = write_run(path, "reward")
    card = {"num_pairs": 40, "accuracy": (low + high) / 2, "low": low, "high": high}
    (run / "model").mkdir()
    write_json(run / "model" / "report_card.json", card)
    return run


@pytest.mark.parametrize("status", ["failed", "preempted", "running"])
@pytest.mark.parametrize("inner", ["", "/model"])
def test_an_unfinished_parent_is_refused(tmp_path: Path, status: str, inner: str) -> None:
    parent = write_run(tmp_path / "sft", status=status)
    (parent / "model").mkdir()  # written before the run was proved
    config = load_config(RewardConfig, None, [f"model.path={parent}{inner}"])
    with pytest.raises(ArtifactError, match=rf"model\.path: {parent} is {status}"):
        require_parents(config)


@pytest.mark.parametrize("path", ["EleutherAI/polyglot-ko-1.3b", "{folder}/base", "{folder}/sft", "{folder}/sft/model"])
def test_finished_runs_and_models_of_others_pass(tmp_path: Path, path: str) -> None:
    (tmp_path / "base").mkdir()
    (write_run(tmp_path / "sft") / "model").mkdir()
    require_parents(load_config(RewardConfig, None, [f"model.path={path.format(folder=tmp_path)}"]))


def test_a_model_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"actor\.path: no such folder: .*/sft/model"):
        require_parents(load_config(PpoConfig, None, [f"actor.path={tmp_path}/sft/model"]))


@pytest.mark.parametrize("inner", ["", "/model"])
def test_ppo_asks_for_the_reward_models_card(tmp_path: Path, inner: str) -> None:
    sft = write_run(tmp_path / "sft")
    words = [f"actor.path={sft}", "reward.min_accuracy=0.6"]
    weak, good = reward_run(tmp_path / "weak", low=0.4, high=0.59), reward_run(tmp_path / "good", low=0.5, high=0.6)
    require_parents(load_config(PpoConfig, None, [*words, f"reward.path={good}{inner}"]))
    with pytest.raises(ArtifactError, match=r"is right on 0\.495 \[0\.400, 0\.590\] of 40"):
        require_parents(load_config(PpoConfig, None, [*words, f"reward.path={weak}{inner}"]))


def test_the_command_prints_the_run_folder_or_the_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "reward.yaml"
    config.write_text(f"model:\n  path: {tmp_path}/sft/model\n")
    data = "data.train=demo:rankings_train"
    words = ["--config", str(config), data, "run.dir=runs/말투", "--resume", "auto"]
    assert main(["ready", "--parents", "later", "step2_reward", *words]) == 0
    assert capsys.readouterr().out == "runs/말투\n"
    assert main(["ready", "reward", *words]) == 1
    assert capsys.readouterr().out == ""
    assert main(["ready", "--parents", "later", "reward", *words, "train.lrr=1"]) == 1
    assert "did you mean train.lr?" in capsys.readouterr().err
