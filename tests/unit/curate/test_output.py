"""A data command's file is whole or absent, and its manifest accounts for every row."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from rlhf.curate.output import Output, manifest_path
from rlhf.errors import DataError


def source(folder: Path) -> Path:
    path = folder / "in.jsonl"
    path.write_text('{"prompt": "안녕"}\n', encoding="utf-8")
    return path


def break_off(output: Output) -> None:
    with output:
        output.write({"prompt": "가"})
        raise ValueError("broken")


def test_the_manifest_accounts_for_every_row(tmp_path: Path) -> None:
    path, read = tmp_path / "new" / "out.jsonl", source(tmp_path)
    with Output(path, command="data filter", inputs=[read], options={"min_chars": 16}) as output:
        output.write({"prompt": "가"})
        for _ in range(7):
            output.drop("too short", "나")
        output.count("masked phone numbers", 2)
    assert path.read_text(encoding="utf-8") == '{"prompt": "가"}\n'
    manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    assert manifest["kept"] == 1
    assert manifest["dropped"] == {"too short": 7}
    assert manifest["examples_of_dropped"] == {"too short": ["나"] * 5}
    assert manifest["counts"] == {"masked phone numbers": 2}
    assert manifest["options"] == {"min_chars": 16}
    assert manifest["inputs"] == [{"path": str(read), "sha256": hashlib.sha256(read.read_bytes()).hexdigest()}]
    assert sorted(item.name for item in path.parent.iterdir()) == ["out.jsonl", "out.jsonl.manifest.json"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before\n", encoding="utf-8")
    with pytest.raises(ValueError, match="broken"):
        break_off(Output(path, command="data filter", inputs=[source(tmp_path)], options={}))
    assert path.read_text(encoding="utf-8") == "before\n"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_an_output_that_cannot_be_is_refused_before_any_row(tmp_path: Path) -> None:
    read = source(tmp_path)
    with pytest.raises(DataError, match="is a folder"):
        Output(tmp_path, command="c", inputs=[], options={})
    with pytest.raises(DataError, match="is also an input"):
        Output(read, command="c", inputs=[read], options={})
    with pytest.raises(DataError, match="cannot be written"):
        Output(read / "below" / "out.jsonl", command="c", inputs=[], options={})
