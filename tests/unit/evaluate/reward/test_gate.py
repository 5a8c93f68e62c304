"""Which report cards let a reward model into PPO."""

from __future__ import annotations

import json

import pytest

from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.errors import ArtifactError
from rlhf.evaluate.reward.gate import read_card, refusal, require_accuracy


def card(high: float) -> dict[str, float]:
    return {"num_rankings": 9, "num_pairs": 20, "accuracy": 0.55, "low": 0.5, "high": high}


def folder_with(tmp_path, content):
    (tmp_path / "report_card.json").write_text(json.dumps(content), encoding="utf-8")
    return str(tmp_path)


@pytest.mark.parametrize("high", [0.6, 0.61])
def test_a_card_whose_interval_reaches_the_minimum_passes(tmp_path, high):
    assert refusal(card(high), 0.6) == ""
    require_accuracy(folder_with(tmp_path, card(high)), 0.6)


def test_a_card_whose_interval_ends_below_is_refused_with_its_figures(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        require_accuracy(folder_with(tmp_path, card(0.59)), 0.6)
    text = str(caught.value)
    for words in ("0.550 [0.500, 0.590]", "20 held-out pairs", "reward.min_accuracy = 0.6", "reward.min_accuracy=null"):
        assert words in text


def test_a_missing_card_is_refused(tmp_path):
    assert read_card(tmp_path) is None
    with pytest.raises(ArtifactError, match=r"has no report_card\.json"):
        require_accuracy(str(tmp_path), 0.6)


@pytest.mark.parametrize("content", [{"num_rankings": 0, "mean_before_shift": 0.1}, {}])
def test_an_empty_card_is_refused(tmp_path, content):
    with pytest.raises(ArtifactError, match="empty report card"):
        require_accuracy(folder_with(tmp_path, content), 0.0)


def test_null_takes_any(tmp_path):
    require_accuracy(str(tmp_path), None)


def test_the_key_defaults_to_on_and_can_be_null(tmp_path):
    file = tmp_path / "ppo.yaml"
    file.write_text("run:\n  dir: x\n", encoding="utf-8")
    assert load_config(PpoConfig, file).reward.min_accuracy == 0.6
    assert load_config(PpoConfig, file, ["reward.min_accuracy=null"]).reward.min_accuracy is None
