"""Rows for other tools, byte for byte, and read back as what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.curate.formats.exporting import RowExportOptions, export_file
from rlhf.curate.formats.importing import ImportOptions, import_files
from rlhf.curate.output import manifest_path
from rlhf.errors import DataError

USER = {"role": "user", "content": "줄여 줘"}
ANSWER = {"role": "assistant", "content": "글"}
ONE = {"messages": [{**USER, "input": "긴 글"}, ANSWER], "source": "a"}
TWO = {"messages": [{"role": "system", "content": "친구"}, USER, ANSWER, {**USER, "content": "더"}, ANSWER]}
RANKED = {"prompt": "안녕", "responses": ["반가워요", "네", "왜"], "ranks": [1, 2, 2]}


def exported(folder: Path, format: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    path, out = folder / "in.jsonl", folder / "out.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    export_file(RowExportOptions(format, str(path), out))
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def dropped(folder: Path) -> dict[str, int]:
    return json.loads(manifest_path(folder / "out.jsonl").read_text(encoding="utf-8"))["dropped"]


def test_openai_holds_role_and_content_only(tmp_path: Path) -> None:
    assert exported(tmp_path, "openai", ONE, TWO) == [
        {"messages": [{"role": "user", "content": "줄여 줘\n\n긴 글"}, ANSWER]},
        {"messages": TWO["messages"]},
    ]


def test_openai_preferences_are_the_untied_pairs(tmp_path: Path) -> None:
    assert exported(tmp_path, "openai", RANKED) == [
        {
            "input": {"messages": [{"role": "user", "content": "안녕"}]},
            "preferred_output": [{"role": "assistant", "content": "반가워요"}],
            "non_preferred_output": [{"role": "assistant", "content": worse}],
        }
        for worse in ("네", "왜")
    ]


def test_messages_keep_the_input(tmp_path: Path) -> None:
    assert exported(tmp_path, "messages", ONE) == [{"messages": [{**USER, "input": "긴 글"}, ANSWER]}]


def test_alpaca_takes_one_question(tmp_path: Path) -> None:
    assert exported(tmp_path, "alpaca", ONE, TWO) == [{"instruction": "줄여 줘", "input": "긴 글", "output": "글"}]
    assert dropped(tmp_path) == {"more than one question and one answer, which alpaca cannot express": 1}


def test_hh_is_a_transcript(tmp_path: Path) -> None:
    start = "\n\nHuman: 안녕\n\nAssistant: "
    assert exported(tmp_path, "hh", RANKED) == [
        {"chosen": f"{start}반가워요", "rejected": f"{start}네"},
        {"chosen": f"{start}반가워요", "rejected": f"{start}왜"},
    ]


def test_what_a_transcript_cannot_say_is_left_out(tmp_path: Path) -> None:
    system = {**RANKED, "prompt": [{"role": "system", "content": "친구"}, {"role": "user", "content": "안녕"}]}
    tied = {**RANKED, "ranks": [1, 1, 1]}
    sign = {**RANKED, "responses": ["네\n\nHuman: 더", "네", "왜"]}
    assert len(exported(tmp_path, "hh", system, tied, sign, RANKED)) == 2
    assert sorted(dropped(tmp_path).values()) == [1, 1, 1]


def test_there_and_back(tmp_path: Path) -> None:
    for format, row in (("openai", TWO), ("messages", ONE), ("alpaca", ONE)):
        (written,) = exported(tmp_path, format, row)
        path = tmp_path / "written.jsonl"
        path.write_text(json.dumps(written), encoding="utf-8")
        import_files(ImportOptions((str(path),), tmp_path / "back.jsonl"))
        back = json.loads((tmp_path / "back.jsonl").read_text(encoding="utf-8"))
        assert back["messages"] == row["messages"], format


@pytest.mark.parametrize(
    ("format", "row", "problem"),
    [
        ("hh", ONE, "no row can be written as hh"),
        ("messages", RANKED, "no row can be written as messages"),
        ("openai", {"prompt": "안녕"}, "no row can be written as openai"),
        ("openai", {"text": "안녕"}, "no row can be written as openai"),
    ],
)
def test_rows_of_the_wrong_kind(tmp_path: Path, format: str, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        exported(tmp_path, format, row)
    assert "in.jsonl:1" in caught.value.fix
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.jsonl"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(tmp_path, "messages", ONE)
    out = tmp_path / "upload.jsonl"
    assert main(["data", "export", "--format", "openai", "--in", str(tmp_path / "out.jsonl"), "--out", str(out)]) == 0
    assert "fewer than 10 rows" in capsys.readouterr().out
    assert json.loads(out.read_text(encoding="utf-8"))["messages"][1] == ANSWER
