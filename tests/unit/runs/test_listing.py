"""Runs in a table: their status, their best, and what is a run at all."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from rlhf.artifacts.files import write_json
from rlhf.artifacts.run_folder import RunFolder
from rlhf.cli import main
from rlhf.errors import ArtifactError
from rlhf.runs.listing import best_first, columns, find_runs, runs_table
from rlhf.runs.record import Best, RunRecord, best_of, status_of
from tests.support.run_folders import write_run

REWARD, ACCURACY = "objective/reward", "eval/accuracy"


def test_a_run_that_says_running_is_killed_when_nobody_holds_its_lock(tmp_path: Path) -> None:
    folder = RunFolder(write_run(tmp_path / "run", status="running"))
    assert status_of(folder) == "killed"
    with folder.locked():
        assert status_of(folder) == "running"
        assert status_of(folder) == "running"  # asking has not taken the lock away
    assert status_of(folder) == "killed"
    with folder.locked():  # nor does it keep the lock
        pass


@pytest.mark.parametrize("status", ["preempted", "failed", "finished"])
def test_other_states_are_reported_as_they_are(tmp_path: Path, status: str) -> None:
    assert status_of(RunFolder(write_run(tmp_path / "run", status=status))) == status


def test_a_run_before_its_first_state_is_queued_or_not_started(tmp_path: Path) -> None:
    assert status_of(RunFolder(tmp_path)) == "not started"
    write_json(tmp_path / "job.json", {"job": "7"})
    assert status_of(RunFolder(tmp_path)) == "queued"
    assert RunRecord(tmp_path).step == 0


@pytest.mark.parametrize(
    ("stage", "values", "expected"),
    [
        ("sft", [{"eval/loss": 2.0}, {"eval/loss": 1.5}, {"eval/loss": 1.8}], Best("eval/loss", 1.5, 2)),
        ("sft", [{"loss": 2.0}, {"loss": 2.5}], Best("loss", 2.0, 1)),  # nothing was held out
        ("sft", [{"loss": 0.1, "eval/loss": 3.0}], Best("eval/loss", 3.0, 1)),  # held-out first, whatever its value
        ("sft", [{"eval/loss": math.nan}, {"eval/loss": 4.0}], Best("eval/loss", 4.0, 2)),
        (
            "reward",
            [{"eval/accuracy": 0.6}, {"eval/accuracy": 0.7}, {"reward_model/accuracy": 0.9}],
            Best("eval/accuracy", 0.7, 2),
        ),
        ("ppo", [{REWARD: -1.0}, {REWARD: -0.5}, {REWARD: -2.0}], Best(REWARD, -0.5, 2)),
        ("ppo", [{"objective/kl": 1.0}], None),
        ("", [{"loss": 1.0}], None),
    ],
)
def test_the_best_is_the_least_loss_or_the_most_of_the_rest(stage, values, expected) -> None:
    assert best_of(stage, [{"step": step, **row} for step, row in enumerate(values, 1)]) == expected


def test_runs_are_found_below_a_folder_but_not_inside_a_run(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a" / "b" / "run")
    second = write_run(tmp_path / "run")
    write_run(second / "checkpoints" / "copy")
    (tmp_path / "base" / "model").mkdir(parents=True)
    (tmp_path / "note.txt").touch()
    assert find_runs([tmp_path]) == [first, second]
    assert find_runs([second, tmp_path, second]) == [second, first]
    with pytest.raises(ArtifactError, match=r"no such folder: .*nowhere"):
        find_runs([tmp_path / "nowhere"])


def test_the_table_names_the_runs_it_started_from_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", "ppo", metrics=[{"step": 1, REWARD: 0.123456}])
    made = {"actor": "runs/sft/model", "reference": "runs/sft/model", "reward": "runs/reward"}
    parents = {role: {"path": path, "stage": "sft"} for role, path in made.items()}
    write_json(run / "manifest.json", {"stage": "ppo", "parents": {**parents, "base": {"path": "org/model"}}})
    os.utime(run / "state.json", (0, 86400 * 365))
    head, line = runs_table([RunRecord(run)]).splitlines()
    assert head.split() == ["run", "stage", "status", "steps", "best", "at", "step", "when", "starts", "from"]
    assert line.startswith(f"{run}  ppo    finished  1      objective/reward 0.1235  1        1971-01-0")
    assert line.endswith("runs/sft, runs/reward, org/model")


def test_columns_count_hangul_as_two_places() -> None:
    # 가나 is as wide as four letters
    assert columns(("a", "b"), [("가나", "1"), ("abc", "2")]) == "a     b\n가나  1\nabc   2\n"


def test_best_first_knows_which_way_is_better(tmp_path: Path) -> None:
    def runs(stage: str, name: str, values: list[float | None]) -> list[str]:
        folders = [
            write_run(tmp_path / stage / str(value), stage, metrics=[{"step": 1, name: value}] if value else [])
            for value in values
        ]
        return [run.path.name for run in best_first([RunRecord(folder) for folder in folders])]

    assert runs("sft", "eval/loss", [2.0, None, 1.0, 3.0]) == ["1.0", "2.0", "3.0", "None"]
    assert runs("reward", "eval/accuracy", [0.5, 0.9, None, 0.7]) == ["0.9", "0.7", "0.5", "None"]


def test_the_command_lists_the_last_changed_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"
    for name, seconds in (("old", 1000), ("new", 2000), ("middle", 1500)):
        os.utime(write_run(tmp_path / name) / "state.json", (seconds, seconds))
    assert main(["runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [Path(line.split()[0]).name for line in lines] == ["new", "middle", "old"]
