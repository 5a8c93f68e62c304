"""PPO whose reward model is a service: the same rewards as with the model in the trainer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.conftest import read_lines
from tests.integration.starts import Starter
from tests.support.serving import service_process


def test_rewards_of_a_service_equal_those_of_the_local_model(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    """Two iterations, and the same held-out answers after them. The critic starts on the reward model in both runs."""
    words = ["--config", configs["ppo"], f"actor.path={chain['sft']}", f"critic.path={chain['reward']}/model"]
    words += ["run.max_steps=2", "eval.every_steps=2", "control.enabled=false", "log.samples_every_steps=1"]
    starter.run("ppo", *words, f"reward.path={chain['reward']}/model", f"run.dir={tmp_path}/local")
    with service_process("--model", f"reward={chain['reward']}") as (_, said):
        assert "reward: a reward model" in said
        url = re.search(r"serving on (\S+)/v1", said)[1]
        endpoint = f"reward.endpoints=[{{url: '{url}/v1/scores', batch_size: 3, name: model2}}]"
        starter.run("ppo", *words, endpoint, f"run.dir={tmp_path}/remote")
    local, remote = ([*read_lines(tmp_path / name / "metrics.jsonl")] for name in ("local", "remote"))
    keys = ["objective/reward", "objective/reward_std", "eval/reward", "policy/loss", "value/loss", "objective/kl"]
    seen = [{key: line[key] for key in keys if key in line} for line in remote]
    assert seen == [
        pytest.approx({key: line[key] for key in keys if key in line}, rel=1e-4, abs=1e-6) for line in local
    ]
    assert len({line["objective/reward"] for line in local}) == 2
    assert [line["reward_by_source/model2"] for line in remote] == [
        pytest.approx(line["reward_by_source/model"], rel=1e-5) for line in local
    ]
    told, heard = (read_lines(tmp_path / name / "samples.jsonl") for name in ("local", "remote"))
    assert [(row["answer"], row["score"]) for row in heard] == [
        (row["answer"], pytest.approx(row["score"], abs=1e-5)) for row in told
    ]
