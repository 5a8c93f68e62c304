"""What PPO refuses before it loads a model."""

from __future__ import annotations

import json

import pytest

from rlhf.config.ppo import ActorSection, PpoConfig
from rlhf.config.reward_sources import RewardRole
from rlhf.errors import ArtifactError
from rlhf.train.policy.build_roles import checked_paths


@pytest.fixture
def folders(tmp_path):
    """An actor and a reward that hold no weights at all, the reward with a weak card."""
    for name in ("actor", "reward"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
    manifest = {"stage": "reward", "parents": {}, "data": []}
    (tmp_path / "reward" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    card = {"num_rankings": 9, "num_pairs": 9, "accuracy": 0.5, "low": 0.4, "high": 0.58}
    (tmp_path / "reward" / "report_card.json").write_text(json.dumps(card), encoding="utf-8")
    return tmp_path


def config(folders, **reward):
    role = RewardRole(path=str(folders / "reward"), **reward)
    return PpoConfig(actor=ActorSection(path=str(folders / "actor")), reward=role)


def test_a_weak_reward_model_is_refused(folders):
    with pytest.raises(ArtifactError, match=r"0\.500 \[0\.400, 0\.580\]"):
        checked_paths(config(folders))


@pytest.mark.parametrize("minimum", [None, 0.58, 0.3])
def test_a_lower_bar_or_none_lets_it_through(folders, minimum):
    assert checked_paths(config(folders, min_accuracy=minimum)).reward == str(folders / "reward")


def test_a_card_that_is_gone_is_refused(folders):
    (folders / "reward" / "report_card.json").unlink()
    with pytest.raises(ArtifactError, match="report_card"):
        checked_paths(config(folders))
