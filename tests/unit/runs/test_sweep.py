"""A grid becomes runs: what each is called, what is refused before the first starts, and what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.errors import ArtifactError, ConfigError
from rlhf.runs import sweep as sweeping
from rlhf.runs.sweep import parse_grid, plan_sweep
from tests.support.run_folders import write_run


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "base").mkdir()
    path = tmp_path / "sft.yaml"
    path.write_text(f"model:\n  path: {tmp_path}/base\ntrain:\n  epochs: 3\n")
    return str(path)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train.lr=1e-5,3e-5", {"train.lr": ["1e-5", "3e-5"]}),
        ("train.lr=1e-5", {"train.lr": ["1e-5"]}),
        ("model.lora=null,{rank: 4, alpha: 8}", {"model.lora": ["null", "{rank: 4, alpha: 8}"]}),
        ("data.train=[a.jsonl,b.jsonl],[c.jsonl]", {"data.train": ["[a.jsonl,b.jsonl]", "[c.jsonl]"]}),
        ("data.train='a,b.jsonl',c.jsonl", {"data.train": ["'a,b.jsonl'", "c.jsonl"]}),
    ],
)
def test_commas_part_values_but_not_within_brackets_or_quotes(word: str, expected: dict[str, list[str]]) -> None:
    assert parse_grid([word]) == expected


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["train.lr"], "not a key with values"),
        (["=1"], "not a key with values"),
        (["train.lr=1e-5,"], "not a key with values"),
        (["train.lr=1e-5", "train.lr=1e-4"], "train.lr is given twice"),
        (["train.lr=1e-5,1e-5"], "a value is given twice"),
        (["run.dir=a,b"], "names the run folders itself"),
    ],
)
def test_a_grid_of_another_form_is_refused(words: list[str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_grid(words)


def test_every_combination_is_a_folder_named_by_what_it_changes(config: str, tmp_path: Path) -> None:
    planned = plan_sweep("sft", config, ["train.lr=1e-5,3e-5", "train.epochs=1,2"], ["run.seed=3"], tmp_path / "out")
    names = ["lr=1e-5_epochs=1", "lr=1e-5_epochs=2", "lr=3e-5_epochs=1", "lr=3e-5_epochs=2"]
    assert [point.folder for point in planned.points] == [tmp_path / "out" / name for name in names]
    folder = tmp_path / "out" / names[1]
    assert planned.points[1].overrides == ("run.seed=3", "train.lr=1e-5", "train.epochs=2", f"run.dir={folder}")
    assert not (tmp_path / "out").exists()


def test_keys_with_one_last_part_keep_their_sections(config: str, tmp_path: Path) -> None:
    planned = plan_sweep("sft", config, ["eval.every_steps=2", "checkpoint.every_steps=4"], [], tmp_path)
    assert planned.points[0].folder.name == "eval.every_steps=2_checkpoint.every_steps=4"


def test_values_that_no_folder_can_be_named_by_stay_apart(config: str, tmp_path: Path) -> None:
    planned = plan_sweep("sft", config, ["data.train=a/b.jsonl,a-b.jsonl,[a/b.jsonl]"], [], tmp_path)
    names = [point.folder.name for point in planned.points]
    assert names[1] == "train=a-b.jsonl"
    assert len(set(names)) == 3
    assert all("/" not in name and "[" not in name for name in names)


def test_bad_keys_and_values_are_reported_once_and_nothing_is_made(config: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(
            "sft", config, ["train.lr=1e-5,3e-5", "train.epochs=1,many"], ["train.micro_token=1"], tmp_path / "o"
        )
    text = str(caught.value)
    assert text.count("did you mean train.micro_tokens?") == 1  # of four points
    assert text.count("train.epochs = many") == 1
    assert not (tmp_path / "o").exists()


def test_a_parent_that_is_not_finished_is_refused_first(config: str, tmp_path: Path) -> None:
    parent = write_run(tmp_path / "parent", status="failed")
    with pytest.raises(ArtifactError, match="is failed"):
        plan_sweep("sft", config, ["train.lr=1e-5,3e-5"], [f"model.path={parent}"], tmp_path / "out")


def test_a_folder_with_other_settings_is_not_gone_on_with(config: str, tmp_path: Path) -> None:
    base = f"model.path={tmp_path}/base"
    write_run(tmp_path / "out" / "lr=1e-5", "sft", base, "train.epochs=3", "train.lr=1e-5")
    plan_sweep("sft", config, ["train.lr=1e-5,3e-5"], [], tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"train\.epochs = 3\.0, not 2\.0"):
        plan_sweep("sft", config, ["train.lr=1e-5,3e-5"], ["train.epochs=2"], tmp_path / "out")


def test_a_local_sweep_keeps_the_finished_and_goes_past_the_failed(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The launcher is replaced by what its runs would leave: one fails, the others finish."""
    started: list[str] = []
    loss = {"1e-5": 3.0, "2e-5": 1.0, "3e-5": 2.0}

    def leave_a_run(stage: str, words: list[str], *, ranks: int | None) -> int:
        assert (stage, words[:4], ranks) == ("sft", ["--config", config, "--resume", "auto"], 2)
        folder = Path(words[-1].removeprefix("run.dir="))
        rate = folder.name.removeprefix("lr=")
        started.append(rate)
        status = "failed" if rate == "2e-5" else "finished"
        write_run(folder, "sft", *words[4:-1], status=status, metrics=[{"step": 1, "loss": loss[rate]}])
        return status == "failed"

    monkeypatch.setattr(sweeping, "start_stage", leave_a_run)
    base = [f"model.path={tmp_path}/base", "train.epochs=3"]
    write_run(tmp_path / "o" / "lr=3e-5", "sft", *base, "train.lr=3e-5", metrics=[{"step": 1, "loss": 2.0}])
    words = [*base, "--grid", "train.lr=1e-5,2e-5,3e-5", "--local", "--ranks", "2", "--out", str(tmp_path / "o")]
    assert main(["sweep", config, *words]) == 1
    assert started == ["1e-5", "2e-5"]
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [(Path(line.split()[0]).name, line.split()[2]) for line in lines] == [
        ("lr=2e-5", "failed"),
        ("lr=3e-5", "finished"),
        ("lr=1e-5", "finished"),
    ]


def test_a_local_sweep_ends_with_the_run_that_was_stopped(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def stop(stage: str, words: list[str], *, ranks: int | None) -> int:
        started.append(words[-1])
        write_run(Path(words[-1].removeprefix("run.dir=")), stage, *words[4:-1], status="preempted")
        return 75

    monkeypatch.setattr(sweeping, "start_stage", stop)
    assert main(["sweep", config, "--grid", "train.lr=1e-5,2e-5", "--local", "--out", str(tmp_path / "o")]) == 1
    assert len(started) == 1


def test_a_file_without_a_stages_name_needs_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("{}\n")
    assert main(["sweep", str(path), "--grid", "train.lr=1e-5", "--local", "--out", str(tmp_path / "o")]) == 1
    assert "add --stage sft, reward, ppo or dpo" in capsys.readouterr().err
