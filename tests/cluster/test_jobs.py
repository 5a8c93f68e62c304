"""scripts/slurm on a real Slurm: two nodes, preempted and queued again, three stages chained, a sweep."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm, wait_until
from tests.integration.conftest import read_json, read_lines, read_run, require_same_run
from tests.support.launcher import REPOSITORY

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

SCRIPTS = REPOSITORY / "scripts" / "slurm"
LONG = ["train.epochs=24", "eval.every_steps=12", "checkpoint.every_steps=12", "log.samples_every_steps=12"]  # 84 steps


def submit(cluster: Slurm, log: Path, *words: str | Path, nodes: int = 2) -> str:
    options = ["--parsable", f"--nodes={nodes}", f"--output={log}"]
    return cluster.run("sbatch", *options, SCRIPTS / "train.sbatch", *words)


@pytest.fixture(scope="module")
def uninterrupted(cluster: Slurm, configs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two nodes with a rank each."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run, log = folder / "sft", folder / "log.txt"
    job = cluster.wait(submit(cluster, log, "step1_sft", configs["sft"], f"run.dir={run}", *LONG))
    assert job["JobState"] == "COMPLETED", log.read_text()
    return run


def test_a_job_of_two_nodes_trains_on_both_and_keeps_a_log_a_rank(uninterrupted: Path) -> None:
    assert read_json(uninterrupted / "state.json")["status"] == "finished"
    assert read_json(uninterrupted / "manifest.json")["settings"]["world_size"] == 2
    (logs,) = (uninterrupted / "logs").iterdir()
    assert sorted(path.name.rpartition("_")[2] for path in logs.glob("*.log")) == ["rank0.log", "rank1.log"]
    assert (logs / "hostfile").read_text() == "n1 slots=1\nn2 slots=1\n"
    (first,) = logs.glob("*_rank0.log")
    assert "step 84/84" in first.read_text()


def test_a_preempted_job_is_queued_again_and_ends_with_the_same_numbers(
    cluster: Slurm, configs: dict[str, Path], uninterrupted: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "sft", tmp_path / "log.txt"
    number = submit(cluster, log, "step1_sft", configs["sft"], f"run.dir={run}", *LONG)
    wait_until((run / "metrics.jsonl").exists, "the first step is logged", timeout=400)
    cluster.run("scancel", "--batch", "--signal=USR1", number)  # as --signal=B:USR1 does before the time limit
    wait_until(lambda: "is queued again" in log.read_text(), "the job asks for another turn", timeout=240)
    stopped = int(re.findall(r"stopped after step (\d+)", log.read_text())[0])
    assert 0 < stopped < 84
    job = cluster.wait(number)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), log.read_text()
    assert f"after step {stopped}" in next((run / "logs" / f"{number}.1").glob("*_rank0.log")).read_text()
    require_same_run(run, read_run(uninterrupted))


def test_a_job_whose_run_a_person_stopped_is_not_queued_again(
    cluster: Slurm, configs: dict[str, Path], tmp_path: Path
) -> None:
    run, log = tmp_path / "sft", tmp_path / "log.txt"
    number = submit(cluster, log, "step1_sft", configs["sft"], f"run.dir={run}", *LONG, nodes=1)
    wait_until((run / "metrics.jsonl").exists, "the first step is logged", timeout=400)
    cluster.run("rlhf", "stop", run)
    job = cluster.wait(number)
    assert (job["JobState"], job["Restarts"]) == ("FAILED", "0"), log.read_text()
    assert read_json(run / "state.json")["status"] == "preempted"
    assert f"as asked by the file {run}/stop" in log.read_text()


def test_the_three_stages_follow_one_another(cluster: Slurm, configs: dict[str, Path], tmp_path: Path) -> None:
    runs = {stage: tmp_path / stage for stage in configs}
    words = [f"{stage}:run.dir={run}" for stage, run in runs.items()]
    words += ["sft:train.epochs=24", f"reward:model.path={runs['sft']}"]
    words += [f"ppo:actor.path={runs['sft']}", f"ppo:reward.path={runs['reward']}/model"]
    command = [SCRIPTS / "pipeline.sh", "--nodes=1", f"--output={tmp_path}/%j.txt", configs["sft"].parent, *words]
    numbers = re.findall(r"job (\d+)", cluster.run(*command))
    assert len(numbers) == 3
    jobs = [cluster.wait(number) for number in numbers]
    logs = "".join((tmp_path / f"{number}.txt").read_text() for number in numbers)
    assert [job["JobState"] for job in jobs] == ["COMPLETED"] * 3, logs
    assert jobs[0]["EndTime"] <= jobs[1]["StartTime"]
    assert jobs[1]["EndTime"] <= jobs[2]["StartTime"]
    assert read_json(runs["ppo"] / "manifest.json")["parents"]["reward"]["path"] == str(runs["reward"] / "model")
    assert read_lines(runs["ppo"] / "metrics.jsonl")[-1]["step"] == 7
    again = cluster.run(*command)
    assert [line.partition(":")[0] for line in again.splitlines()] == ["sft", "reward", "ppo"]
    assert again.count("is finished") == 3


def test_what_follows_a_stage_that_cannot_start_never_runs(
    cluster: Slurm, configs: dict[str, Path], tmp_path: Path
) -> None:
    words = [f"{stage}:run.dir={tmp_path / stage}" for stage in configs]
    words += [f"sft:model.path={tmp_path}/nothing/model", "reward:model.path=a", "ppo:actor.path=a"]
    command = [SCRIPTS / "pipeline.sh", "--nodes=1", f"--output={tmp_path}/%j.txt", configs["sft"].parent, *words]
    first, *others = re.findall(r"job (\d+)", cluster.run(*command))
    assert cluster.wait(first)["JobState"] == "FAILED"
    assert f"no such folder: {tmp_path}/nothing/model" in (tmp_path / f"{first}.txt").read_text()
    assert [cluster.wait(number)["JobState"] for number in others] == ["CANCELLED"] * 2
    assert not any((tmp_path / stage).exists() for stage in configs)


def test_a_pipeline_with_a_misspelt_key_queues_nothing(cluster: Slurm, configs: dict[str, Path]) -> None:
    with pytest.raises(AssertionError, match=r"did you mean train\.lr"):
        cluster.run(SCRIPTS / "pipeline.sh", configs["sft"].parent, "ppo:train.lrr=1")
    assert cluster.run("squeue", "--noheader", "--states=PENDING,RUNNING") == ""


def test_a_sweep_is_a_job_a_point(cluster: Slurm, configs: dict[str, Path], tmp_path: Path) -> None:
    options = ["--sbatch", f"--nodes=1 --output={tmp_path}/%j.txt"]
    words = ["--grid", "train.lr=1e-3,3e-3", "--slurm", "--out", tmp_path / "sweep", *options]
    command = ["rlhf", "sweep", configs["sft"], "run.max_steps=2", *words]
    table = cluster.run(*command)
    assert table.count("queued") == 2
    jobs = [read_json(tmp_path / "sweep" / f"lr={rate}" / "job.json")["job"] for rate in ("1e-3", "3e-3")]
    assert [cluster.wait(job)["JobState"] for job in jobs] == ["COMPLETED"] * 2
    assert cluster.run(*command).count("  finished  2") == 2
    rates = [read_lines(tmp_path / "sweep" / f"lr={rate}" / "metrics.jsonl")[0]["lr"] for rate in ("1e-3", "3e-3")]
    assert rates == pytest.approx([1e-3, 3e-3])
