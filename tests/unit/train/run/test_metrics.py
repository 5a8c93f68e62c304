"""The log of a run: one line per step, under known names alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import SftConfig
from rlhf.config.sections import LogSection
from rlhf.errors import ConfigError
from rlhf.train.run.before_start import package_problems
from rlhf.train.run.metrics import MetricsLog
from rlhf.train.run.trackers import figures_of, open_trackers


def log_of(folder: Path, *, active: bool = True) -> MetricsLog:
    folder.mkdir(exist_ok=True)
    shown = ("loss", "objective/kl")
    return MetricsLog(RunFolder(folder), total=2, start=0, active=active, shown=shown)


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


class Recorder:
    """A service that remembers what it gets, and can fail."""

    identity = ""

    def __init__(self, *, fails: bool = False) -> None:
        self.got: list[tuple] = []
        self.fails = fails

    def metrics(self, step: int, values: dict) -> None:
        if self.fails:
            raise OSError("the network is gone")
        self.got.append(("metrics", step, dict(values)))

    def samples(self, step: int, rows: list) -> None:
        self.got.append(("samples", step, rows))

    def event(self, step: int, text: str) -> None:
        self.got.append(("event", step, text))

    def report(self, name: str, card: dict) -> None:
        self.got.append(("report", name, card))

    def close(self, *, failed: bool) -> None:
        self.got.append(("close", failed))


def test_every_service_gets_all_of_it_and_one_that_fails_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = Recorder(), Recorder(fails=True)
    log = log_of(tmp_path / "run")
    log._open_trackers = lambda: {"good": good, "bad": bad}  # type: ignore[dict-item]
    log.open()
    with log:
        log.log(1, {"loss": 2.0})
        log.samples(1, [{"answer": "네"}])
        log.event(1, "a tripwire")
        log.report("report_card", {"accuracy": 0.5})
    assert good.got == [
        ("metrics", 1, {"loss": 2.0}),
        ("samples", 1, [{"answer": "네"}]),
        ("event", 1, "a tripwire"),
        ("report", "report_card", {"accuracy": 0.5}),
        ("close", False),
    ]
    assert bad.got == []
    said = capsys.readouterr().err
    assert said.count("bad failed and gets nothing more") == 1
    assert "a tripwire" in said


def test_a_run_that_ends_in_an_error_ends_so_in_the_services(tmp_path: Path) -> None:
    service = Recorder()
    log = log_of(tmp_path / "run")
    log._open_trackers = lambda: {"one": service}  # type: ignore[dict-item]
    log.open()
    with pytest.raises(RuntimeError), log:
        raise RuntimeError("no more")
    assert service.got == [("close", True)]


def test_a_missing_package_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf.errors.find_spec", lambda name: None if name == "mlflow" else object())
    config = load_config(SftConfig, None, ["log.to=[tensorboard, mlflow]"])
    (problem,) = package_problems(config)
    assert "mlflow" in problem.problem
    assert problem.where == "log.to"
    assert "pip install -e '.[trackers]' in the checkout, or log.to=[tensorboard]" in problem.fix
    assert list(package_problems(load_config(SftConfig, None, []))) == []


def test_a_service_that_cannot_be_opened_is_an_error_of_its_key(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where a folder should be", encoding="utf-8")
    with pytest.raises(ConfigError, match="tensorboard cannot be opened") as caught:
        open_trackers(tmp_path, LogSection(), {}, start=0)
    assert caught.value.where == "log.to"


def test_figures_of_a_report_by_name() -> None:
    card = {"accuracy": 0.5, "pairs": 8, "length": {"correlation": 0.1, "by": {"x": 1}}, "note": "a", "ok": True}
    assert figures_of(card, "card/") == {
        "card/accuracy": 0.5,
        "card/pairs": 8.0,
        "card/length.correlation": 0.1,
        "card/length.by.x": 1.0,
    }


def test_the_package_of_an_optimizer_is_asked_for_only_where_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf.errors.find_spec", lambda name: None if name == "bitsandbytes" else object())
    config = load_config(PpoConfig, None, ["critic.optimizer=adamw8bit"])
    (problem,) = package_problems(config)
    assert "adamw8bit needs bitsandbytes, which is not installed" in problem.problem
    assert problem.where == "critic.optimizer"
    assert problem.fix == "pip install -e '.[gpu]' in the checkout, or set critic.optimizer=adamw"
    assert list(package_problems(load_config(PpoConfig, None, ["critic.optimizer=adafactor"]))) == []
