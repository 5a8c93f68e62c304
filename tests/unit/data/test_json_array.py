"""An array is read through a window, and means what it means to the json module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.data import json_array
from rlhf.data.json_array import array_elements
from rlhf.errors import DataError

values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.sampled_from(["]", '"', ",\n", "한국😊"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def tiny_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "_CHUNK", 3)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=st.lists(values, max_size=5), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_elements_and_their_lines(tmp_path: Path, array: list[Any], indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(array, indent=indent, ensure_ascii=ascii_only)
    path = tmp_path / "array.json"
    path.write_text(f"\n {text}\n", encoding="utf-8-sig", errors="surrogatepass", newline="")
    found = list(array_elements(path))
    assert [element for _, element in found] == array
    sizes = [json.dumps(element, indent=indent, ensure_ascii=ascii_only).count("\n") + 1 for element in array]
    expected = [3 + sum(sizes[:index]) if indent else 2 for index in range(len(array))]
    assert [line for line, _ in found] == expected


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ('[{"a": 1},\n{"a": }]', "invalid JSON in the array's element on this line: Expecting value on line 2", "2"),
        ('[{"a": 1}\n{"a": 2}]', "truncated or lacks a comma", "2"),
        ('[{"a": 1},\n{"a": 2', "invalid JSON", "2"),
        ('[{"a": 1},\n', "not closed", ""),
        ('[{"a": 1}] 2', "not closed", ""),
    ],
)
def test_a_broken_array_names_its_line(tmp_path: Path, text: str, problem: str, line: str) -> None:
    path = tmp_path / "array.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=problem) as caught:
        list(array_elements(path))
    assert caught.value.where == (f"{path}:{line}" if line else str(path))


def test_bytes_that_are_no_text_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_bytes(b'["abcdefgh",\n"ijklmnop",\n"\xb0\xa1"]')
    with pytest.raises(DataError, match="byte 0xb0 is not UTF-8") as caught:
        list(array_elements(path))
    assert caught.value.where == f"{path}:3"


def test_an_endless_element_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "LONGEST_LINE", 100)
    path = tmp_path / "array.json"
    path.write_text(f'["{"a" * 1000}"]', encoding="utf-8")
    with pytest.raises(DataError, match="element of more than"):
        list(array_elements(path))
