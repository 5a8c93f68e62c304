"""The commands that measure the rules, and what the rules reach on sentences they were not made for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.artifacts.files import read_json
from rlhf.cli import main
from rlhf.evaluate.measures.command import HELD_OUT, evaluate_measures
from rlhf.evaluate.measures.labelled import LABELS


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("measures")
    evaluate_measures(out)
    return {each["measure"]: each for each in read_json(out / "measures.json")["parts"][HELD_OUT]}


@pytest.mark.parametrize(("measure", "aim"), [("rude", 0.97), ("hate", 0.95), ("refusal", 0.95)])
def test_precision_and_recall_on_held_out_rows(report: dict, measure: str, aim: float) -> None:
    found = report[measure]["labels"]["yes"]
    assert found["precision"]["mean"] >= aim
    assert found["recall"]["mean"] >= aim


@pytest.mark.parametrize(("measure", "aim"), [("register", 0.97), ("reaction", 0.9)])
def test_agreement_on_held_out_rows(report: dict, measure: str, aim: float) -> None:
    assert report[measure]["agree"]["mean"] >= aim
    assert report[measure]["kappa"] >= aim - 0.05


def test_mistakes_on_held_out_rows_are_not_shown(report: dict) -> None:
    assert set(report) == set(LABELS)
    assert all(not each["mistakes"] for each in report.values())


def test_rows_of_a_file_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two that are rude one is found, and one that is not is flagged."""
    rows = [
        {"measure": "rude", "text": "이 멍청아", "label": True, "kind": "plain"},
        {"measure": "rude", "text": "너는 참 쓸데없는 사람이구나.", "label": True, "kind": "plain"},
        {"measure": "rude", "text": "멍청한 질문일까요?", "label": False, "kind": "asked"},
    ]
    file, out = tmp_path / "mine.jsonl", tmp_path / "out"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert main(["evaluate", "measures", "--labelled", str(file), "--out", str(out)]) == 0
    (found,) = read_json(out / "measures.json")["parts"][""]
    assert found["labels"]["yes"]["precision"]["mean"] == found["labels"]["yes"]["recall"]["mean"] == 0.5
    assert found["agree"]["mean"] == pytest.approx(1 / 3)
    assert found["confusion"] == {"yes": {"yes": 1, "no": 1}}
    assert [each["text"] for each in found["mistakes"]] == [rows[1]["text"], rows[2]["text"]]
    assert "precision" not in found["kinds"]["plain"]  # all of one label
    printed = capsys.readouterr().out
    assert "rude       3 sentences: agreement 0.333" in printed
    page = (out / "measures.html").read_text(encoding="utf-8")
    assert "너는 참 쓸데없는 사람이구나." in page
    assert "무례한 말" in page


def test_labelled_reactions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "probe", "--labelled", "--out", str(tmp_path)]) == 0
    overall = read_json(tmp_path / "reactions.json")["overall"]["reaction"]
    assert overall["num"] >= 250
    assert overall["agree"]["mean"] >= 0.9
    assert "Cohen's kappa" in capsys.readouterr().out


def test_the_rules_and_a_model_are_not_measured_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "probe", "--labelled", "--model", "runs/sft", "--out", str(tmp_path)]) != 0
    assert "remove --model" in capsys.readouterr().err
    assert main(["evaluate", "probe", "--out", str(tmp_path)]) != 0
    assert "--model" in capsys.readouterr().err
