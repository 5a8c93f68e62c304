"""Answers that an engine in a process of its own draws for commands, which load a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.cli import main
from rlhf.data.tokenizer import load_tokenizer
from tests.support.bigram_model import make_bigram_model, toy_python

ASKED = ("오늘 날씨 어때?", "점심에 뭘 먹을까?", "비 와.")


@pytest.fixture(scope="module")
def model(tmp_path_factory, chat_tokenizer) -> Path:
    return make_bigram_model(tmp_path_factory.mktemp("bigram") / "model", chat_tokenizer)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    return toy_python(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def prompts(tmp_path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}, ensure_ascii=False) + "\n" for text in ASKED))
    return path


def words(model: Path, prompts: Path, out: Path, *more: str) -> list[str]:
    lengths = ["--max-new-tokens", "5", "--max-prompt-tokens", "96"]
    return ["--model", str(model), "--prompts", str(prompts), "--out", str(out), "--k", "3", *lengths, *more]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def engine(python: Path) -> list[str]:
    return ["--backend", "vllm", "--vllm-python", str(python)]


def test_greedy_answers_are_those_of_the_table(model, prompts, python, tmp_path):
    out = tmp_path / "s.jsonl"
    assert main(["data", "sample", *words(model, prompts, out, "--temperature", "0"), *engine(python)]) == 0
    tokenizer, table = load_tokenizer(str(model)), np.load(model / "table.npy")
    from rlhf.data.encode import Encoder
    from rlhf.data.records import Message, Prompt

    for text, row in zip(ASKED, rows_of(out), strict=True):
        last = Encoder(tokenizer, 96).prompts([Prompt((Message("user", text),))])[0].ids[-1]
        expected: list[int] = []
        while len(expected) < 5 and (not expected or expected[-1] != tokenizer.eos_id):
            last = int(table[last].argmax())
            expected.append(last)
        assert row["responses"] == [tokenizer.text(expected).strip()] * 3
        assert row["answers"][0]["decoding"]["backend"] == "vllm"
        assert row["answers"][0]["tokens"] == len(expected)


def test_answers_to_one_prompt_are_one_request(model, prompts, python, tmp_path):
    out = tmp_path / "s.jsonl"
    assert main(["data", "sample", *words(model, prompts, out), *engine(python)]) == 0
    log = (tmp_path / "s.jsonl.engine0-rank0.log").read_text()
    assert "answers [3, 3, 3]\n" in log
    settings = json.loads(log.partition("settings ")[2].partition("}")[0] + "}")
    assert (settings["weights"], settings["gpu_memory"], settings["max_length"]) == ("folder", 0.85, 101)
    assert len({text for row in rows_of(out) for text in row["responses"]}) > 3


def test_the_answers_of_another_backend_are_not_used_again(model, prompts, python, tmp_path, capsys):
    out = tmp_path / "report"
    asked = words(model, prompts, out)
    assert main(["evaluate", "generation", *asked, *engine(python)]) == 0
    by_engine = rows_of(out / "answers.jsonl")
    assert main(["evaluate", "generation", *asked, *engine(python)]) == 0
    assert capsys.readouterr().err.count("answers are read from") == 1
    assert main(["evaluate", "generation", *asked]) == 0
    assert "answers are read from" not in capsys.readouterr().err
    assert rows_of(out / "answers.jsonl") != by_engine
    assert json.loads((out / "generation.json").read_text())["decoding"]["backend"] == "transformers"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("withholds", "after the engine has read the model the engine's log-probabilities of 8 rows differ"),
        ("version", "--vllm-python: the engine's environment has vllm 0.12.0"),
        ("dies", "ended with exit status 9"),
    ],
)
def test_an_engine_that_fails_names_the_flag(model, prompts, python, tmp_path, monkeypatch, capsys, fault, said):
    monkeypatch.setenv("TOY_ENGINE", fault)
    assert main(["data", "sample", *words(model, prompts, tmp_path / "s.jsonl"), *engine(python)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "rollout.vllm" not in error
    assert "rollout.backend" not in error
    assert not (tmp_path / "s.jsonl").exists()


def test_a_python_that_is_not_there(model, prompts, tmp_path, capsys):
    asked = words(model, prompts, tmp_path / "s.jsonl", "--backend", "vllm", "--vllm-python", "/no/python")
    assert main(["data", "sample", *asked]) == 1
    error = capsys.readouterr().err
    assert "--vllm-python: /no/python cannot be started" in error
    assert "set --vllm-python ENV/bin/python" in error


def test_vllm_of_this_environment_is_never_replaced(model, prompts, tmp_path, capsys):
    assert main(["data", "sample", *words(model, prompts, tmp_path / "s.jsonl"), "--backend", "vllm"]) == 1
    error = capsys.readouterr().err
    assert "--vllm-python" in error
    assert "--backend vllm" in error
