"""The log of a run: one line per step, under known names alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.artifacts.run_folder import RunFolder
from rlhf.train.run.metrics import MetricsLog


def log_of(folder: Path, *, active: bool = True) -> MetricsLog:
    folder.mkdir(exist_ok=True)
    shown = ("loss", "objective/kl")
    return MetricsLog(RunFolder(folder), total=2, start=0, active=active, tensorboard=False, shown=shown)


def test_a_line_per_step_with_the_time_since_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log_of(tmp_path / "run") as log:
        log.log(1, {"loss": 2.0, "objective/kl": 0.25, "prompts/대화/kl": 1.0})
        log.log(2, {"loss": 1.0})
    first, second = (json.loads(line) for line in RunFolder(tmp_path / "run").metrics.read_text().splitlines())
    assert second["time/wall_s"] >= first.pop("time/wall_s") >= 0
    assert first == {"step": 1, "loss": 2.0, "objective/kl": 0.25, "prompts/대화/kl": 1.0}
    assert "step 1/2  loss 2  objective/kl 0.25  about" in capsys.readouterr().err


def test_a_name_without_a_description_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with log_of(tmp_path / "run") as log, pytest.raises(AssertionError, match=r"metrics\.yaml.*'kl'"):
        log.log(1, {"loss": 2.0, "kl": 0.25})
    assert not RunFolder(tmp_path / "run").metrics.exists()


def test_other_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log_of(tmp_path / "run", active=False) as log:
        log.log(1, {"loss": 2.0})
    assert list((tmp_path / "run").iterdir()) == []
    assert capsys.readouterr().err == ""
