"""`rlhf` answers quickly, and `rlhf quickstart` refuses before anything is trained."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.cli import main
from tests.integration.conftest import read_json
from tests.support.launcher import REPOSITORY

ASK = """
import sys
from rlhf.cli import main
try:
    main(sys.argv[1:])
finally:
    print(sorted({name.partition(".")[0] for name in sys.modules}))
"""


def rlhf(*words: str) -> tuple[list[str], str, float]:
    """Packages that were imported, what was written, and the seconds of processor time it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", ASK, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text, _, packages = done.stdout.rstrip().rpartition("\n")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 0, done.stderr
    return json.loads(packages.replace("'", '"')), text, seconds


@pytest.mark.parametrize(
    "words", [["--help"], ["quickstart", "--help"], ["base", "tiny", "--help"], ["evaluate", "reward", "--help"]]
)
def test_help_is_quick_and_imports_nothing_heavy(words: list[str]) -> None:
    packages, text, seconds = rlhf(*words)
    assert "rlhf" in packages
    assert not {"torch", "transformers", "deepspeed", "numpy", "pydantic", "rich"} & set(packages)
    assert "usage: rlhf" in text
    assert seconds < 1.0


def test_help_names_the_commands() -> None:
    _, text, _ = rlhf("--help")
    assert all(command in text for command in ("quickstart", "base", "config"))


def data_folder(korean: Path, folder: Path) -> Path:
    """The files `rlhf quickstart --data` wants."""
    folder.mkdir()
    for name, source in (("sft", "sft"), ("preference", "rankings"), ("prompts", "prompts")):
        for part in ("train", "dev"):
            shutil.copy(korean / f"{source}_{part}.jsonl", folder / f"{name}_{part}.jsonl")
    return folder


def test_a_missing_file_is_named_before_anything_is_made(
    korean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder(korean, tmp_path / "data")
    (data / "preference_dev.jsonl").unlink()
    assert main(["quickstart", "--data", str(data), "--out", str(tmp_path / "q")]) == 1
    text = capsys.readouterr().err
    assert f"DataError: --data: no such file: {data}/preference_dev.jsonl" in text
    assert "DIR/{sft,preference,prompts}_{train,dev}.jsonl" in text
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("words", [["--seed", "5"], ["--data", "{data}"], ["--lora"], ["--estimator", "grpo"]])
def test_an_out_of_other_settings_is_refused_and_kept(
    korean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    data = data_folder(korean, tmp_path / "data")
    out = tmp_path / "q"
    out.mkdir()
    known = {"data": None, "seed": 17, "seconds": {"base": 12.5}}
    (out / "quickstart.json").write_text(json.dumps(known), encoding="utf-8")
    assert main(["quickstart", "--out", str(out), *(word.format(data=data) for word in words)]) == 1
    text = capsys.readouterr().err
    assert f"ArtifactError: --out: {out} holds a quickstart with other settings" in text
    assert "choose another --out" in text
    assert read_json(out / "quickstart.json") == known
    assert os.listdir(out) == ["quickstart.json"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("sft_train", "", "stage sft  data.train  {data}/sft_train.jsonl: no rows"),
        ("sft_dev", '{"prompt": "비 좋', "stage sft  data.eval  {data}/sft_dev.jsonl: none of 1 rows can be used"),
        (
            "preference_dev",
            '{"prompt": "비?"}',
            "stage reward  data.eval  {data}/preference_dev.jsonl:1: the",
        ),
        ("prompts_train", '{"prompt": "비?"}\n' * 60, "stage ppo  train.warmup_steps = 2: a warm-up of 2 steps"),
    ],
)
def test_every_stage_is_checked_before_the_first(
    korean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, said: str
) -> None:
    data = data_folder(korean, tmp_path / "data")
    (data / f"{file}.jsonl").write_text(content, encoding="utf-8")
    assert main(["quickstart", "--data", str(data), "--out", str(tmp_path / "q")]) == 1
    assert said.format(data=data) in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


def test_a_stage_that_fails_ends_the_quickstart_with_its_reason(
    korean: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The base is there and is no model, which the process of stage 1 finds."""
    data = data_folder(korean, tmp_path / "data")
    prompts = data / "prompts_train.jsonl"
    prompts.write_text(prompts.read_text(encoding="utf-8") * 10, encoding="utf-8")  # enough for the warm-up
    base = tmp_path / "q" / "base" / "model"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}", encoding="utf-8")
    assert main(["quickstart", "--data", str(data), "--out", str(tmp_path / "q")]) == 1
    text = capfd.readouterr().err
    assert f"TrainingError: {tmp_path}/q/sft: stage sft ended with status 1: " in text
    assert not (tmp_path / "q" / "reward").exists()
