"""How YAML is read, and which YAML is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import SftConfig
from rlhf.config.yaml_lines import Document, KeyOrigin
from rlhf.errors import ConfigError


@pytest.fixture(autouse=True)
def _inside_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def refuse(path: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(SftConfig, path)
    return caught.value


# --- values ---


@pytest.mark.parametrize(("written", "expected"), [("1e-5", 0.00001), ("3E-4", 0.0003), ("1e5", 100000), (".5", 0.5)])
def test_a_number_with_an_exponent_is_a_number(written: str, expected: float) -> None:
    path = write("my.yaml", f"train: {{lr: {written}}}")
    assert load_config(SftConfig, path).train.lr == expected
    assert load_config(SftConfig, None, [f"train.lr={written}"]).train.lr == expected


def test_a_whole_number_with_an_exponent_counts() -> None:
    assert load_config(PpoConfig, write("my.yaml", "ppo: {kl_horizon: 1e5}")).ppo.kl_horizon == 100000


def test_a_long_whole_number_keeps_every_digit() -> None:
    # 2 ** 53 + 1, which a 64-bit float cannot hold
    assert load_config(SftConfig, write("my.yaml", "run: {seed: 9007199254740993}")).run.seed == 9007199254740993


def test_an_alias_may_be_used_often() -> None:
    train = load_config(SftConfig, write("my.yaml", "train: {lr: &x 0.5, beta1: *x, beta2: *x}")).train
    assert (train.lr, train.beta1, train.beta2) == (0.5, 0.5, 0.5)


def test_a_value_that_is_replaced_takes_its_origins_along() -> None:
    document = Document({"a": [1], "b": 2}, {("a",): KeyOrigin("x:1", "[1]"), ("a", 0): KeyOrigin("x:1", "1")})
    document.put(document.values, ("a",), 3, {("a",): KeyOrigin("y:1", "3"), ("c",): KeyOrigin("y:2", "4")})
    assert document.values == {"a": 3, "b": 2}
    assert document.origins == {("a",): KeyOrigin("y:1", "3")}


@pytest.mark.parametrize("written", ["no", "on", "2024-01-01", "16k", "1e5.jsonl", "0x10", "1:30"])
def test_text_that_yaml_1_1_would_change_stays_text(written: str) -> None:
    assert load_config(SftConfig, write("my.yaml", f"run: {{dir: {written}}}")).run.dir == written


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("train.lr", '"1e-5"'),  # text is not taken for a number
        ("train.batch_size", "true"),  # nor true for 1
        ("train.batch_size", "8.0"),
        ("log.project", "1"),
        ("run.dir", "7"),
    ],
)
def test_no_type_is_turned_into_another(key: str, written: str) -> None:
    section, leaf = key.split(".")
    error = refuse(write("my.yaml", f"{section}:\n  {leaf}: {written}"))
    assert f"my.yaml:2  {key} = {written}: not of the type expected" in str(error)


def test_an_empty_file_and_no_file_are_the_defaults() -> None:
    assert load_config(SftConfig, write("my.yaml", "# nothing\n")) == SftConfig() == load_config(SftConfig, None)


# --- files that are not good YAML ---


def test_a_key_given_twice_names_both_lines() -> None:
    error = refuse(write("my.yaml", "train:\n  lr: 1\n  epochs: 1\n  lr: 2\n"))
    assert error.where == "my.yaml:4  train.lr"
    assert error.problem == "given twice: my.yaml:2 and my.yaml:4"
    assert error.fix == "join the two, or remove one train.lr"


def test_a_tab_is_refused_with_its_line() -> None:
    error = refuse(write("my.yaml", "train:\n\tlr: 1\n"))
    assert error.where == "my.yaml:2"
    assert error.problem.startswith("not valid YAML: found character '\\t'")
    assert "indent with spaces" in error.fix


def test_an_open_bracket_names_where_it_began() -> None:
    error = refuse(write("my.yaml", "data:\n  train: [a,\n  eval: b\nrun: {}\n"))
    assert error.problem.endswith("begun on line 2)")


def test_other_encodings_are_refused_with_the_line() -> None:
    Path("my.yaml").write_bytes(b"run:\n  dir: " + "안녕".encode("cp949"))
    error = refuse("my.yaml")
    assert (error.where, error.problem, error.expected) == ("my.yaml:2", "not UTF-8", "UTF-8 text")


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    Path("my.yaml").write_bytes("﻿run: {dir: 실행}".encode())
    assert load_config(SftConfig, "my.yaml").run.dir == "실행"


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("- a\n", "my.yaml:1", "holds no keys"),
        ("run: {}\ntrain: &t\n  x: *t\n", "my.yaml:2", "an alias inside its own anchor"),
        ("train:\n  <<: {lr: 1}\n", "my.yaml:2", "the merge key <<"),
        (
            "run:\n  dir: !!python/name:os.system x\n",
            "my.yaml:2",
            "the YAML tag tag:yaml.org,2002:python/name",
        ),
        ("run:\n  dir: !!str [a]\n", "my.yaml:2", "the YAML tag"),
        ("run: {}\n---\nrun: {}\n", "my.yaml:2", "not valid YAML"),
    ],
)
def test_unusual_yaml_is_refused_with_its_line(text: str, where: str, problem: str) -> None:
    error = refuse(write("my.yaml", text))
    assert error.where.startswith(where)
    assert error.problem.startswith(problem)
