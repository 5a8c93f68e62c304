"""Lines of a file at the limit of their length, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.data import lines
from rlhf.data.lines import decoded_lines, raw_lines
from rlhf.errors import DataError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lines, "LONGEST_LINE", 10)
    return tmp_path / "file.jsonl"


def test_a_line_over_the_limit_is_left_out_and_still_counted(file: Path) -> None:
    """The line end counts: nine letters fit into ten bytes, ten do not, unless the file ends there."""
    file.write_bytes(b"a" * 9 + b"\n" + b"b" * 10 + b"\n" + b"c" * 35 + b"\n\n" + b"d" * 10)
    assert list(raw_lines(file)) == [(1, b"a" * 9 + b"\n"), (2, None), (3, None), (4, b"\n"), (5, b"d" * 10)]


def test_a_last_line_over_the_limit_ends_the_file(file: Path) -> None:
    file.write_bytes(b"a\n" + b"b" * 25)
    assert list(raw_lines(file)) == [(1, b"a\n"), (2, None)]


def test_text_over_the_limit_names_its_line(file: Path) -> None:
    file.write_bytes(b"a\n" + b"b" * 25 + b"\n")
    with pytest.raises(DataError, match="a line of more than") as caught:
        list(decoded_lines(file))
    assert caught.value.where == f"{file}:2"
