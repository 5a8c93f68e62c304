"""Excel files: the named sheet, or the first; every value is text, as in CSV."""

from __future__ import annotations

from pathlib import Path

import pytest
from openpyxl import Workbook

from rlhf.data.readers import locate, read_rows
from rlhf.errors import ConfigError, DataError


@pytest.fixture
def book(tmp_path: Path) -> Path:
    found = Workbook()
    first = found.active
    first.title = "대화"
    for row in (
        ["prompt", "response", "점수"],
        ["비 와?", "네,\n우산요.", 3],
        [None, None, None],
        ["밥?", "아직요.", None],
    ):
        first.append(row)
    other = found.create_sheet("다른 것")
    other.append(["prompt"])
    other.append(["안녕?"])
    found.save(tmp_path / "talk.xlsx")
    return tmp_path / "talk.xlsx"


def rows_of(path: str) -> list[dict]:
    return [row for _, row in read_rows(locate(path))]


def test_a_sheet_is_a_table(book: Path) -> None:
    expected = [
        {"prompt": "비 와?", "response": "네,\n우산요.", "점수": "3"},
        {"prompt": "밥?", "response": "아직요.", "점수": ""},
    ]
    assert rows_of(str(book)) == expected
    assert rows_of(f"{book}#대화") == expected
    assert rows_of(f"{book}#다른 것") == [{"prompt": "안녕?"}]
    assert [number for number, _ in read_rows(locate(str(book)))] == [2, 4]


def test_a_sheet_that_is_not_there_names_those_that_are(book: Path) -> None:
    with pytest.raises(DataError, match="no sheet '없음'") as caught:
        rows_of(f"{book}#없음")
    assert caught.value.expected == f"{book}#대화, {book}#다른 것"


def test_a_damaged_file_and_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.xlsx").write_bytes(b"PK\x03\x04 no book")
    with pytest.raises(DataError, match="cannot be read"):
        rows_of(str(tmp_path / "bad.xlsx"))
    monkeypatch.setattr("rlhf.errors.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="openpyxl"):
        rows_of(str(tmp_path / "bad.xlsx"))
