"""Several judges need the package that measures their agreement, and its absence ends the command at its start."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import rlhf.errors
from rlhf.cli import main
from tests.unit.evaluate.geval.test_table import row

ROOT = Path(__file__).parents[4]
MISSING = (
    "the agreement of several judges needs krippendorff, which is not installed\n"
    "  fix:      pip install -e '.[llm]' in the checkout"
)
NOBODY = "http://127.0.0.1:1/v1"


@pytest.fixture
def _without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "krippendorff" else importlib.util.find_spec(name)

    monkeypatch.setattr(rlhf.errors, "find_spec", find)


def stored(folder: Path, *judges: str) -> list[str]:
    """The words that make the table again from scores of these judges."""
    rows = [row("가", [5, 3], model, judge=judge) for judge in judges for model in ("sft", "ppo")]
    file = folder / "scores.jsonl"
    file.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
    return ["evaluate", "judge", "--from-scores", str(file), "--out", str(folder / "out")]


def asked(folder: Path, *judges: str) -> list[str]:
    """The words that draw answers of two models, which are not there, and have them judged by nobody."""
    prompts = folder / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "가"}, ensure_ascii=False) + "\n", encoding="utf-8")
    models = ["--model", str(folder / "sft"), "--model", str(folder / "ppo")]
    named = [word for judge in judges for word in ("--judge", f"{NOBODY}={judge}")]
    return ["evaluate", "judge", *models, "--prompts", str(prompts), *named, "--out", str(folder / "out")]


def test_the_extra_that_is_named_installs_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(each.startswith("krippendorff") for each in extras["llm"])


@pytest.mark.usefixtures("_without_package")
@pytest.mark.parametrize("command", [stored, asked])
def test_two_judges_end_before_anything_is_read_or_drawn(
    command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, "m", "n")) == 1
    assert MISSING in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("_without_package")
def test_one_judge_needs_no_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(stored(tmp_path, "m")) == 0
    assert "agreement" not in json.loads((tmp_path / "out" / "geval.json").read_text(encoding="utf-8"))
    assert main(asked(tmp_path, "m")) == 1  # of the models, which are not there
    said = capsys.readouterr().err
    assert "krippendorff" not in said
    assert str(tmp_path / "sft") in said
