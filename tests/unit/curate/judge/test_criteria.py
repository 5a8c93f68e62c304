"""Criteria are YAML in Korean that a user edits; what is wrong with it is said with file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.curate.judge.criteria import FOLDER, criteria_text, load_criteria, shipped_names
from rlhf.errors import ConfigError

VAIV = {"친근함", "무해함", "이해 가능성", "자연스러움", "맥락 유지", "전반적인 품질"}
GOOD = """\
task: 답변입니다.
steps:
  - 견줍니다.
criteria:
  - name: 친근함
    definition: 다정한가.
    low: 쌀쌀맞습니다.
    high: 따뜻합니다.
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_four_sets_are_shipped_with_the_criteria_of_their_kind_of_data():
    assert shipped_names() == ["conversation", "general", "harmless", "translation"]
    assert set(load_criteria("conversation").names) == VAIV
    assert set(load_criteria("harmless").names) == VAIV
    assert set(load_criteria("translation").names) == VAIV | {"진실성"}
    assert set(load_criteria("general").names) == VAIV - {"친근함"} | {"진실성"}
    assert load_criteria("conversation").highest_sum == 30


@pytest.mark.parametrize("name", [file.stem for file in FOLDER.glob("*.yaml")])
def test_shipped_sets_are_korean_and_whole_sentences(name: str):
    criteria = load_criteria(name)
    assert criteria.name == name
    for text in (criteria.task, *criteria.steps, *(each for one in criteria.criteria for each in (one.low, one.high))):
        assert text.endswith("니다."), text
    assert not re.search("[A-Za-z]", "".join(one.definition for one in criteria.criteria))
    assert all(one.definition.endswith(("가.", "는가.")) for one in criteria.criteria)


def test_what_is_printed_is_the_set_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["data", "judge", "--print-criteria", "conversation"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed == criteria_text("conversation")
    assert load_criteria(str(written(tmp_path, printed))) == load_criteria("conversation")


def test_a_file_of_ones_own_is_named_after_itself(tmp_path: Path):
    criteria = load_criteria(str(written(tmp_path, GOOD)))
    assert (criteria.name, criteria.names, criteria.highest_sum) == ("mine", ("친근함",), 5)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("    low: 쌀쌀맞습니다.\n", "", 5, "field required"),
        ("definition", "defintion", 6, "the nearest is definition"),
        ("name: 친근함", "name: '친근함: 정'", 5, "one of : = * #"),
        ("  - 견줍니다.\n", "  []\n", 2, "at least 1 item"),
        ("task: 답변입니다.", "task: ''", 1, "at least 1 character"),
        ("task: 답변입니다.", "tasks: 답변입니다.", 1, "the nearest is task"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, said: str):
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_criteria(str(path))
    assert said in str(caught.value)
    assert f"{path}:{line}" in str(caught.value)


def test_two_criteria_of_one_name_cannot_be_told_apart(tmp_path: Path):
    twice = GOOD + GOOD[GOOD.index("  - name") :]
    with pytest.raises(ConfigError, match="two criteria are called 친근함"):
        load_criteria(str(written(tmp_path, twice)))


@pytest.mark.parametrize(("name", "said"), [("conversaton", "nearest is conversation"), ("gone.yaml", "no such file")])
def test_what_is_not_there_is_an_error(name: str, said: str):
    with pytest.raises(ConfigError, match=said):
        load_criteria(name)


@pytest.mark.parametrize("text", ["", "- 하나\n", "a: [1\n"])
def test_yaml_that_is_no_set_is_an_error(tmp_path: Path, text: str):
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_criteria(str(written(tmp_path, text)))
