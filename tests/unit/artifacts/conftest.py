"""Finished runs to publish; `base` is a copy that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlhf.models.loading import load_causal_lm
from tests.support.finished_runs import adapted, finish_run, train


@pytest.fixture
def full_run(tiny_neox, chat_tokenizer, tmp_path) -> Path:
    return finish_run(tmp_path / "run", train(load_causal_lm(str(tiny_neox))), chat_tokenizer, tiny_neox)


@pytest.fixture
def base(tiny_neox, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_neox, tmp_path / "base"))


@pytest.fixture
def lora_run(base, chat_tokenizer, tmp_path) -> Path:
    return finish_run(tmp_path / "run", adapted(base), chat_tokenizer, base)
