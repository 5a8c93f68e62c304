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


@pytest.mark.parametrize("words", [["--seed", "5"], ["--data", "{data}"], ["--lora"]])
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


def test_a_stage_that_fails_ends_the_quickstart_with_its_reason(
    korean: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The base is there; the data of stage 1 is cut, which its own process finds."""
    data = data_folder(korean, tmp_path / "data")
    for part in ("train", "dev"):
        (data / f"sft_{part}.jsonl").write_text('{"prompt": "비 좋아요?", "resp', encoding="utf-8")
    base = tmp_path / "q" / "base" / "model"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}", encoding="utf-8")
    assert main(["quickstart", "--data", str(data), "--out", str(tmp_path / "q")]) == 1
    text = capfd.readouterr().err
    assert f"TrainingError: {tmp_path}/q/sft: stage sft ended with status 1: " in text
    assert not (tmp_path / "q" / "reward").exists()
