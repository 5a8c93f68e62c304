"""A run, or a chain of runs, is checked before torch is imported: data, warm-up, models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, RewardConfig, SftConfig
from rlhf.train.run.before_start import (
    chain_problems,
    checked,
    data_problems,
    missing_models,
    reference_problems,
    schedule_problems,
)
from tests.support.launcher import REPOSITORY

SCRIPTS = {"sft": "step1_sft", "reward": "step2_reward", "ppo": "step3_ppo", "dpo": "dpo"}
GOOD = {"prompt": "안녕?", "response": "네!"}


def write(path: Path, *rows: dict, times: int = 1) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) * times, encoding="utf-8")
    return str(path)


def script(stage: str, *words: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The script of a stage without a launcher, and the packages it had imported at its end."""
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print('PACKAGES', *sorted({name.partition('.')[0] for name in sys.modules})))\n"
        f"sys.argv = {[SCRIPTS[stage], *words]!r}\n"
        f"runpy.run_path({str(REPOSITORY / 'scripts' / SCRIPTS[stage])!r} + '.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
    )
    return done, set(done.stdout.rpartition("PACKAGES")[2].split())


@pytest.mark.parametrize("stage", SCRIPTS)
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--help"], 0, "usage:"),
        (
            ["--config", "recipe:demo/{stage}", "train.lrr=1"],
            1,
            "ConfigError: command line  train.lrr = 1: no such key",
        ),
        (["--config", "recipe:demo/{stage}", "data.train=nowhere.jsonl"], 1, "DataError: data.train  nowhere.jsonl"),
    ],
)
def test_a_script_tells_mistakes_without_torch(stage: str, words: list[str], status: int, said: str) -> None:
    done, packages = script(stage, *(word.format(stage=stage) for word in words))
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert "rlhf" in packages
    assert not {"torch", "transformers", "deepspeed", "datasets", "numpy", "scipy"} & packages


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.path=runs/none/base"], "ModelError: model.path: no such folder: runs/none/base"),
        (["model.path=.", "train.warmup_steps=5000"], "ConfigError: train.warmup_steps = 5000: a warm-up of 5000"),
    ],
)
def test_models_and_warm_up_are_told_before_torch_too(words: list[str], said: str) -> None:
    done, packages = script("sft", "--config", "recipe:demo/sft", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "torch" not in packages


def test_rank_0_tells_it_and_the_others_only_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rlhf.train.run.before_start.OTHERS_WAIT_S", 0.1)
    for rank, told in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as caught:
            checked("sft", ["--config", "recipe:demo/sft", "data.train=nowhere.jsonl"])
        assert caught.value.code == 1
        assert ("nowhere.jsonl" in capsys.readouterr().err) is told


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ('{"prompt": "안녕?"}\n', "the format is prompt"),
        ('{"prompt": "안녕?", "resp', "invalid JSON"),
        ('{"prompt": "안녕?", "response": ""}\n', "the text is empty"),
        ('{"prompt": "안녕?", "response": "네", "label": false}\n', "the answer is bad"),
    ],
)
def test_a_data_file_is_read_to_its_first_usable_row(tmp_path: Path, content: str, said: str) -> None:
    bad, good = tmp_path / "bad.jsonl", write(tmp_path / "good.jsonl", GOOD)
    bad.write_text(content, encoding="utf-8")
    for key in ("data.train", "data.eval"):
        words = {"data.train": good, "data.eval": good, key: str(bad)}
        config = load_config(SftConfig, None, [f"{name}={value}" for name, value in words.items()])
        (problem,) = data_problems(config)
        assert problem.where.startswith(f"{key}  {bad}")
        assert said in problem.problem
    later = write(tmp_path / "later.jsonl", GOOD, {"prompt": ""})
    assert list(data_problems(load_config(SftConfig, None, [f"data.train={later}"]))) == []


def test_bad_rows_that_are_skipped_are_skipped_here_too(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"prompt": ""}, GOOD)
    words = [f"data.train=[{{path: {path}, format: prompt-response}}]"]
    (problem,) = data_problems(load_config(SftConfig, None, words))
    assert f"{path}:1" in problem.where
    assert list(data_problems(load_config(SftConfig, None, [*words, "data.on_bad_row=skip"]))) == []


def test_every_kind_of_data_is_looked_at(tmp_path: Path) -> None:
    pair = write(tmp_path / "pair.jsonl", {"prompt": "안녕?", "chosen": "네!", "rejected": "왜."})
    config = load_config(RewardConfig, None, [f"data.train={pair}", "data.demonstrations=nowhere.jsonl"])
    assert [problem.where.split()[0] for problem in data_problems(config)] == ["data.demonstrations"]
    words = [f"data.train={pair}", "data.ptx=nowhere.jsonl", "ppo.ptx_weight=1", "train.micro_tokens=4096"]
    ppo = load_config(PpoConfig, None, words)
    assert [problem.where.split()[0] for problem in data_problems(ppo)] == ["data.ptx"]
    assert [problem.where for problem in data_problems(load_config(SftConfig, None, []))] == ["data.train"]


def test_preference_optimisation_reads_what_its_loss_compares(tmp_path: Path) -> None:
    pair = write(tmp_path / "pair.jsonl", {"prompt": "안녕?", "chosen": "네!", "rejected": "왜."})
    thumb = write(tmp_path / "thumb.jsonl", {**GOOD, "label": False})
    found = {
        loss: [
            list(data_problems(load_config(DpoConfig, None, [f"dpo.loss={loss}", f"data.train={path}"])))
            for path in (pair, thumb)
        ]
        for loss in ("sigmoid", "kto")
    }
    assert found["kto"] == [[], []]  # a pair is a good answer and a bad one
    assert found["sigmoid"][0] == []
    assert "which has no Ranking" in found["sigmoid"][1][0].problem


def test_a_run_without_reference_log_probabilities_is_told(tmp_path: Path) -> None:
    config = load_config(DpoConfig, None, [f"dpo.reference_from={tmp_path}"])
    (problem,) = reference_problems(config)
    assert (problem.where, "holds no reference log-probabilities" in problem.problem) == ("dpo.reference_from", True)
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "logprobs.safetensors").touch()
    assert list(reference_problems(config)) == []


def test_a_warm_up_longer_than_the_run_is_told_from_the_rows(tmp_path: Path) -> None:
    """40 rows in batches of 4 are 10 steps, of which 30 % are 3."""
    path = write(tmp_path / "rows.jsonl", GOOD, times=40)
    words = [f"data.train={path}", "train.batch_size=4", "train.epochs=1"]
    assert list(schedule_problems(load_config(SftConfig, None, [*words, "train.warmup_steps=3"]))) == []
    (problem,) = schedule_problems(load_config(SftConfig, None, [*words, "train.warmup_steps=4"]))
    assert "4 steps in a run of 10" in problem.problem
    assert list(schedule_problems(load_config(SftConfig, None, ["data.train=nowhere.jsonl"]))) == []


def test_models_of_earlier_stages_need_not_be_there(tmp_path: Path) -> None:
    config = load_config(PpoConfig, None, ["actor.path=runs/a/model", "reward.path=runs/b", "critic.path=./runs/b/"])
    assert list(missing_models(config, earlier=["runs/a", "runs/b"], offline=True)) == []
    found = list(missing_models(config, earlier=["runs/a"], offline=True))
    assert [problem.where for problem in found] == ["critic.path", "reward.path"]
    hub = load_config(SftConfig, None, ["model.path=somebody/nowhere-7b"])
    assert "HF_HUB_OFFLINE" in next(missing_models(hub, offline=True)).problem
    assert list(missing_models(hub, offline=False)) == []


def test_all_problems_of_a_chain_are_told_together(tmp_path: Path) -> None:
    good = write(tmp_path / "rows.jsonl", GOOD, times=8)
    (tmp_path / "base").mkdir()
    chain = {
        "sft": load_config(
            SftConfig,
            None,
            [f"model.path={tmp_path}/base", f"data.train={good}", f"run.dir={tmp_path}/sft", "train.warmup_steps=5"],
        ),
        "reward": load_config(
            RewardConfig, None, [f"model.path={tmp_path}/sft/model", "data.train=nowhere.jsonl", "run.dir=r"]
        ),
    }
    found = chain_problems(chain)
    assert [problem.where.split("  ")[0] for problem in found] == ["stage sft", "stage reward"]
    assert ["warm-up" in problem.problem for problem in found] == [True, False]


def test_ready_checks_data_and_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "rows.jsonl", GOOD, times=40)
    words = ["--config", "recipe:demo/sft", f"data.train={good}", "data.eval=[]", "model.path=runs/first/model"]
    words += [f"run.dir={tmp_path}/sft", "train.warmup_steps=0", "eval.patience=null"]
    assert main(["ready", "--parents", "later", "sft", *words]) == 0  # what comes before it is not named
    assert capsys.readouterr().out == f"{tmp_path}/sft\n"
    assert main(["ready", "--parents", "later", "--after", "runs/zero", "sft", *words]) == 1
    assert "model.path: no such folder: runs/first/model" in capsys.readouterr().err
    assert main(["ready", "--parents", "later", "--after", "runs/first", "sft", *words]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/sft\n"
    assert main(["ready", "--parents", "later", "--after", "runs/first", "sft", *words, "data.train=no.jsonl"]) == 1
    assert "stage sft  data.train  no.jsonl: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["train", "sft", "--config", "recipe:demo/sft", "data.train=nowhere.jsonl"],
        ["evaluate", "reward", "--model", "m", "--data", "nowhere.jsonl", "--out", "o"],
        ["evaluate", "generation", "--model", "m", "--prompts", "nowhere.jsonl", "--out", "o"],
        ["data", "sample", "--model", "m", "--prompts", "nowhere.jsonl", "--out", "o"],
        ["base", "tiny", "--data", "nowhere.jsonl", "--out", "o"],
        ["quickstart", "--data", "nowhere", "--out", "o"],
    ],
)
def test_commands_name_a_missing_file_without_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom rlhf.cli import main\n"
        f"status = main({words!r})\n"
        "sys.exit(status if 'torch' not in sys.modules and 'deepspeed' not in sys.modules else 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 1, done.stderr
    assert "nowhere" in done.stderr
    assert "no such file" in done.stderr
