"""Known failures put into real runs of stage 3: the right wire trips, soon, and does what it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import QUESTIONS, THINGS, read_json, read_lines, read_run, require_same_run, write_rows
from tests.integration.hackable_rewards import THANKS
from tests.integration.starts import Fault, Starter

KILLED = -9
REWARDS = "tests.integration.hackable_rewards"
EVERY_STEP = ["checkpoint.every_steps=1", "checkpoint.keep_last=20", "eval.every_steps=100"]


def paid_by(function: str) -> str:
    return f"reward.functions=[{{path: '{REWARDS}:{function}'}}]"


def only(wire: str, **settings: Any) -> list[str]:
    """Words that leave one wire on; health of the tiny models is not the point here."""
    others = ("kl", "length_slope", "diversity", "repetition", "eos_rate", "hangul", "politeness", "ratio", "grad_norm")
    off = [name for name in (*others, "critic", "reward_variance") if name != wire]
    words = [f"tripwires.{name}.action=off" for name in off]
    return [*words, *(f"tripwires.{wire}.{key}={value}" for key, value in settings.items())]


def trips(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / "tripwires.jsonl")


@pytest.fixture(scope="module")
def grateful(starter: Starter, configs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SFT model that ends every third of its answers with thanks; its prompts are beside it."""
    folder = tmp_path_factory.mktemp("grateful")
    rows = [
        {"prompt": question.format(thing), "response": f"{thing}? {ending}"}
        for thing in THINGS[:4]
        for question in QUESTIONS
        for ending in ("네, 좋아요!", "몰라요.", f"{THANKS}.")
    ]
    write_rows(folder / "sft.jsonl", rows)
    words = ["--config", configs["sft"], f"run.dir={folder}/run", f"data.train={folder}/sft.jsonl"]
    starter.run("sft", *words, "train.epochs=25", "eval.every_steps=200", "checkpoint.every_steps=200")
    return folder / "run"


def test_a_policy_that_thanks_for_everything_is_stopped(
    starter: Starter, configs: dict[str, Path], grateful: Path, tmp_path: Path
) -> None:
    """Scores of 0 and 1: once every answer thanks, their deviation is 0, and stays so for two iterations."""
    words = ["--config", configs["ppo"], f"actor.path={grateful}", f"run.dir={tmp_path}", paid_by("thanks")]
    words += [f"data.train={grateful.parent}/sft.jsonl", "train.epochs=6", "sampling.max_new_tokens=48"]
    words += ["ppo.rollout_size=16", "train.batch_size=16", "ppo.epochs=4", "ppo.kl_coefficient=0", *EVERY_STEP]
    words += ["ppo.kl_target=null", *only("reward_variance", action="stop")]
    text = starter.run("ppo", *words)
    (trip,) = trips(tmp_path)
    assert (trip["wire"], trip["action"]) == ("reward_variance", "stop")
    assert 2 <= trip["step"] <= 12  # of 18
    state = read_json(tmp_path / "state.json")
    assert (state["status"], state["step"]) == ("finished", trip["step"])
    assert state["reason"].startswith(f"Tripwire reward_variance stopped the run at step {trip['step']}.")
    assert text.rstrip().splitlines()[-1] == state["reason"]
    assert (tmp_path / "checkpoints" / f"step-{trip['step']:06d}").is_dir()
    control = read_json(tmp_path / "control.json")
    assert control["num_prompts"] == 4
    assert control["policy"]["mean"] >= control["reference"]["mean"]
    before = read_run(tmp_path)
    assert before.metrics[-1]["step"] == trip["step"]
    again = starter.run("ppo", *words, "--resume", "auto")  # it is over, and stays so
    assert again.rstrip().splitlines()[-1] == state["reason"]
    require_same_run(tmp_path, before)
    assert trips(tmp_path) == [trip]
    more = ["tripwires.reward_variance.action=warn", f"run.max_steps={trip['step'] + 1}"]  # until it is told otherwise
    starter.run("ppo", *words, *more, "--resume", "auto")
    assert read_json(tmp_path / "state.json") == {**state, "step": trip["step"] + 1, "reason": ""}


def test_a_reward_for_length_and_a_critic_that_does_not_learn(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    """The critic starts as a model of something else and keeps to it; the held-out reward model is logged beside."""
    words = ["--config", configs["ppo"], f"actor.path={chain['sft']}", f"run.dir={tmp_path}", paid_by("length")]
    words += [f"critic.path={chain['reward']}/model", "critic.lr=1.0e-12", "run.max_steps=6", *EVERY_STEP]
    words += ["tripwires.critic.warmup_steps=2", "tripwires.critic.steps=3", "control.enabled=false"]
    words += ["tripwires.length_slope.steps=2"]
    text = starter.run("ppo", *words, f"tripwires.held_out_reward={chain['reward']}/model")
    found = {trip["wire"]: trip["step"] for trip in trips(tmp_path)}
    assert 2 <= found["length_slope"] <= 6  # two in a row
    assert 5 <= found["critic"] <= 6  # three in a row after the first two
    assert "control group: skipped (control.enabled is false)" in text
    assert not (tmp_path / "control.json").exists()
    metrics = read_lines(tmp_path / "metrics.jsonl")
    assert metrics[found["length_slope"] - 1]["objective/reward_length_correlation"] > 0.7
    assert len({line["objective/held_out_reward"] for line in metrics}) > 1
    assert metrics[0]["objective/held_out_reward"] != metrics[0]["objective/reward"]


def test_a_rate_100_times_too_high(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--config", configs["ppo"], f"actor.path={chain['sft']}", f"reward.path={chain['reward']}/model"]
    words += ["train.lr=0.1", "run.max_steps=3", "control.enabled=false", f"run.dir={tmp_path}", *EVERY_STEP]
    text = starter.run("ppo", *words, *only("ratio", action="lower_lr"))
    (trip,) = trips(tmp_path)
    assert (trip["wire"], trip["step"], trip["action"]) == ("ratio", 1, "lower_lr")
    assert text.count("tripwire ratio, step 1 (lower_lr)") == 1
    assert [line["lr"] for line in read_lines(tmp_path / "metrics.jsonl")] == pytest.approx([0.1, 0.05, 0.05])
    assert read_json(tmp_path / "state.json")["reason"] == ""


def test_a_held_out_reward_must_be_another(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--config", configs["ppo"], f"actor.path={chain['sft']}", f"reward.path={chain['reward']}/model"]
    words += [f"tripwires.held_out_reward={chain['reward']}", f"run.dir={tmp_path}"]
    assert "is the reward model that PPO trains on" in starter.run("ppo", *words, status=1)


def test_a_rolled_back_run_stops_after_two_and_is_the_same_when_it_is_killed(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    """Any distance is too far: KL is 0 in iteration 1, above it in 2 or soon after, so the run goes back each time."""
    words = ["--config", configs["ppo"], f"actor.path={chain['sft']}", f"reward.path={chain['reward']}/model"]
    words += ["ppo.kl_target=null", "train.lr=5.0e-3", *EVERY_STEP]
    words += only("kl", action="rollback", max_nats=0.01)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    text = starter.run("ppo", *words, f"run.dir={whole}")
    found = trips(whole)
    assert [trip["action"] for trip in found] == ["rollback", "rollback", "stop"]
    first = found[0]["step"]
    assert first >= 2
    assert text.count(f"checkpoints/step-{first - 1:06d} after step {first - 1}") == 2
    lost = read_lines(whole / "abandoned.jsonl")
    assert [(line["rollback"], line["step"]) for line in lost] == [
        (number, step) for number in (1, 2) for step in range(first, found[number - 1]["step"] + 1)
    ]
    metrics = read_lines(whole / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, found[2]["step"] + 1))
    rates = [5e-3] * (first - 1) + [1.25e-3] * (found[2]["step"] - first + 1)
    assert [line["lr"] for line in metrics] == pytest.approx(rates)
    fault = Fault("rlhf.train.policy.tripwire_monitor:TripwireMonitor.roll_back", 2)
    starter.run("ppo", *words, f"run.dir={parts}", fault=fault, status=KILLED)
    starter.run("ppo", *words, f"run.dir={parts}", "--resume", "auto")
    require_same_run(parts, read_run(whole))
    assert trips(parts) == found
    assert len(read_lines(parts / "abandoned.jsonl")) == len(lost)
