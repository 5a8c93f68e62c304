"""Options of stage 3 as a whole run has them: no critic, demonstrations, averages, other sources of reward."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.integration.conftest import Finished, read_json, read_lines, read_run, require_same_run
from tests.integration.starts import Fault, Starter
from tests.support.scoring import scoring_service

POLITE = "{path: 'rlhf.train.reward_functions:polite', weight: 2}"
SHORT = "{path: 'rlhf.train.reward_functions:length_penalty', options: {free_characters: 5}, name: short}"
WEIGHTS = {"model": 1, "polite": 2, "short": 1}


@pytest.fixture
def words(configs: dict[str, Path], chain: dict[str, Path], korean: Path) -> list[str | Path]:
    """GRPO with nearly everything that a checkpoint has to hold; 8 samples an iteration, two minibatches twice."""
    options = ["ppo.estimator=grpo", "ppo.kl_in=loss", "ppo.kl_estimator=k3", "ppo.score_normalise=running"]
    options += ["ppo.ptx_weight=0.5", f"data.ptx={korean}/sft_train.jsonl", "train.ema_decay=0.9"]
    options += [f"reward.functions=[{POLITE}, {SHORT}]", "data.curriculum=length", "run.max_steps=4"]
    return ["--config", configs["ppo"], f"actor.path={chain['sft']}", f"reward.path={chain['reward']}/model", *options]


def test_a_critic_free_run_killed_in_the_middle_goes_on_the_same(
    starter: Starter, words: list[str | Path], tmp_path: Path
) -> None:
    """Iterations 1 and 2 are 8 minibatches and 3 is 4 more: the 14th is in the fourth; saved was the second."""
    starter.run("ppo", *words, f"run.dir={tmp_path}/whole")
    whole = read_run(tmp_path / "whole")
    killed = [*words, f"run.dir={tmp_path}/killed"]
    starter.run("ppo", *killed, fault=Fault("rlhf.train.policy.update:minibatch", 14), status=-signal.SIGKILL)
    assert "after step 2" in starter.run("ppo", *killed, "--resume", "auto")
    require_same_run(tmp_path / "killed", whole)

    for line in whole.metrics:
        told = sum(weight * line[f"reward_by_source/{name}"] for name, weight in WEIGHTS.items())
        assert line["objective/reward"] == pytest.approx(told, rel=1e-6)
        assert line["policy/ptx_grad_norm"] > 0
        assert line["policy/ptx_loss"] > 0
        assert "value/loss" not in line
    assert len({line["objective/score_mean"] for line in whole.metrics}) == 4
    assert not (tmp_path / "whole" / "checkpoints" / "step-000004" / "critic").exists()


def test_the_average_of_the_actor_is_what_is_exported(
    starter: Starter, words: list[str | Path], tmp_path: Path
) -> None:
    """The live actor is the same with and without one."""
    for name, more in (("averaged", ["train.lr=5.0e-3"]), ("plain", ["train.lr=5.0e-3", "train.ema_decay=null"])):
        starter.run("ppo", *words, *more, f"run.dir={tmp_path / name}")
    averaged, plain = read_run(tmp_path / "averaged"), read_run(tmp_path / "plain")
    assert [line["policy/loss"] for line in averaged.metrics] == [line["policy/loss"] for line in plain.metrics]
    rewards = [[line["eval/reward"] for line in run.metrics if "eval/reward" in line] for run in (averaged, plain)]
    assert rewards[0] != rewards[1]
    assert all(not torch.equal(averaged.weights[name], weight) for name, weight in plain.weights.items())


@pytest.mark.parametrize(
    ("alive_for", "completed", "evaluated"),
    [
        pytest.param(3, 2, [], id="while held-out answers are scored"),
        pytest.param(5, 3, [2], id="while an iteration's answers are scored"),
    ],
)
def test_a_dead_endpoint_stops_the_run_with_its_work_saved(
    starter: Starter,
    configs: dict[str, Path],
    chain: dict[str, Path],
    tmp_path: Path,
    alive_for: int,
    completed: int,
    evaluated: list[int],
) -> None:
    """Requests: the one at the start, iteration 1, iteration 2, held out, iteration 3, iteration 4, held out.

    No reward model: values start on the actor's weights.
    """
    with scoring_service() as service:
        service.alive_for = alive_for
        endpoint = f"reward.endpoints=[{{url: '{service.url}', retries: 1, backoff_s: 0, name: length}}]"
        words = ["--config", configs["ppo"], f"actor.path={chain['sft']}", endpoint, "run.max_steps=4"]
        words += [f"run.dir={tmp_path}", "checkpoint.every_steps=100", "control.enabled=false"]
        text = starter.run("ppo", *words, status=1)
        assert f"TrainingError: reward.endpoints.0: {service.url} gave no scores in 2 attempts" in text
        assert read_json(tmp_path / "state.json")["status"] == "failed"
        assert (tmp_path / "checkpoints" / "latest").read_text().strip() == f"step-{completed:06d}"
        lines = read_lines(tmp_path / "metrics.jsonl")
        assert [line["step"] for line in lines] == list(range(1, completed + 1))
        assert [line["step"] for line in lines if "eval/reward" in line] == evaluated
        service.alive_for = None
        assert f"after step {completed}" in starter.run("ppo", *words, "--resume", "auto")
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_an_endpoint_that_is_not_there_is_known_before_models_are_loaded(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    endpoint = "reward.endpoints=[{url: 'http://127.0.0.1:9', retries: 0}]"
    words = ["--config", configs["ppo"], f"actor.path={chain['sft']}", endpoint, f"run.dir={tmp_path}"]
    text = starter.run("ppo", *words, status=1)
    assert "http://127.0.0.1:9 gave no scores" in text
    assert "parameters" not in text


def require_same_after_a_kill_and_on_two_ranks(
    starter: Starter, words: list[str | Path], folder: Path, whole: Finished, *, minibatch: int
) -> None:
    """The run of `words` is `whole`, killed in a minibatch of its third step and resumed, and on two ranks."""
    killed = [*words, f"run.dir={folder}/killed"]
    starter.run("ppo", *killed, fault=Fault("rlhf.train.policy.update:minibatch", minibatch), status=-signal.SIGKILL)
    assert "after step 2" in starter.run("ppo", *killed, "--resume", "auto")
    require_same_run(folder / "killed", whole)

    starter.run_world("ppo", *words, f"run.dir={folder}/shared", ranks=2)
    shared = read_run(folder / "shared")
    for ours, theirs in zip(shared.metrics, whole.metrics, strict=True):
        names = [name for name in theirs if not name.endswith("_s")]
        assert {name: ours[name] for name in names} == pytest.approx(
            {name: theirs[name] for name in names}, rel=1e-3, abs=1e-5
        )


def test_prompts_with_equal_rewards_are_replaced_the_same_after_a_kill_and_on_two_ranks(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    """Half of all pairs of answers agree in a reward of 0 or 1: an iteration of 4 prompts takes more of them."""
    words: list[str | Path] = ["--config", configs["ppo"], f"actor.path={chain['sft']}", "reward.path=''"]
    words += ["reward.functions=[{path: 'tests.integration.coarse_rewards:coin'}]", "run.max_steps=3"]
    words += ["ppo.estimator=rloo", "ppo.samples_per_prompt=2", "ppo.drop_equal_groups=true", "ppo.refill_rounds=8"]
    words += ["ppo.missing_eos_penalty=0", "sampling.temperature=1.5", "control.enabled=false"]
    starter.run("ppo", *words, f"run.dir={tmp_path}/whole")
    whole = read_run(tmp_path / "whole")
    assert sum(line["rollout/groups_dropped"] for line in whole.metrics) >= 2
    assert max(line["rollout/refill_rounds"] for line in whole.metrics) >= 1
    assert all(line["rollout/groups_missing"] == 0 for line in whole.metrics)
    assert all(line["objective/reward"] == pytest.approx(0.5) for line in whole.metrics)  # one of two, in every group
    progress = read_json(tmp_path / "whole" / "checkpoints" / "step-000003" / "trainer.json")
    assert progress["consumed"] == 3 * 4 + sum(line["rollout/groups_dropped"] for line in whole.metrics)

    require_same_after_a_kill_and_on_two_ranks(starter, words, tmp_path, whole, minibatch=10)


def test_answers_from_drafts_are_the_same_after_a_kill_and_on_two_ranks(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], korean: Path, tmp_path: Path
) -> None:
    """4 prompts with two answers each, in every iteration: all but the first iteration start from the last answers."""
    first = {"prompts": (korean / "prompts_train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:4]}
    (tmp_path / "four.jsonl").write_text("".join(first["prompts"]), encoding="utf-8")
    words: list[str | Path] = ["--config", configs["ppo"], f"actor.path={chain['sft']}", "train.epochs=4"]
    words += [f"reward.path={chain['reward']}/model", f"data.train={tmp_path}/four.jsonl", "ppo.samples_per_prompt=2"]
    words += ["rollout.reuse=true", "rollout.reuse_top=100", "sampling.temperature=1.5", "train.lr=3.0e-3"]
    words += ["control.enabled=false"]
    text = starter.run("ppo", *words, f"run.dir={tmp_path}/whole")
    assert "rollout.reuse: drafts of 8 answers, beside those of an iteration" in text
    whole = read_run(tmp_path / "whole")
    assert len(whole.metrics) == 4
    assert "rollout/accepted_share" not in whole.metrics[0]
    assert whole.metrics[0]["rollout/reused_share"] == 0
    assert all(0 < line["rollout/accepted_share"] < 1 for line in whole.metrics[1:])

    require_same_after_a_kill_and_on_two_ranks(starter, words, tmp_path, whole, minibatch=14)
    saved = [path.name for path in (tmp_path / "shared" / "checkpoints" / "step-000004" / "drafts").iterdir()]
    assert sorted(saved) == ["rank-0000-0000.npz", "rank-0001-0000.npz"]
