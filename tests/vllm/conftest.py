"""vLLM on a CPU, in its own environment: `make test-vllm`, or VLLM_PYTHON=ENV/bin/python pytest -m vllm.

`engine_model` is a GPT-NeoX with heads of 32 numbers, the smallest that vLLM's CPU attention has. Engines start in
about 20 s each, so that one serves many tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPTNeoXForCausalLM

from rlhf.config.sections import RolloutSection, SamplingSection, VllmSection
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape
from rlhf.models.loading import PackedCausalLM, load_causal_lm
from rlhf.rollout.vllm.client import VllmRollout
from rlhf.rollout.vllm.start import start_engine
from tests.conftest import VOCABULARY, _saved
from tests.support.launcher import REPOSITORY

SHAPE = TinySize(hidden=64, layers=2, heads=2, vocabulary=VOCABULARY, positions=256)


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The Python that has vLLM; a missing one is an error, because these tests run only when they are asked for."""
    path = Path(os.environ.get("VLLM_PYTHON") or REPOSITORY / ".venv-vllm" / "bin" / "python")
    assert path.is_file(), f"{path} is not there: run make test-vllm, or set VLLM_PYTHON=ENV/bin/python"
    return str(path)


@pytest.fixture(scope="session")
def engine_model(tmp_path_factory, tiny_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("engine_model")
    return _saved(GPTNeoXForCausalLM, polyglot_shape(SHAPE, len(tiny_tokenizer)), folder, tiny_tokenizer, seed=4)


@pytest.fixture(scope="session")
def tokenizer(engine_model) -> ChatTokenizer:
    return load_tokenizer(str(engine_model), "kullm")


@pytest.fixture(scope="session")
def policy(engine_model) -> PackedCausalLM:
    return load_causal_lm(str(engine_model)).eval()


def started(engine_model: Path, tokenizer: ChatTokenizer, vllm_python: str, folder: Path, **options: Any) -> Any:
    section = VllmSection(python=vllm_python, cpu_cache_gib=0.25, **options)
    return start_engine(
        str(engine_model),
        RolloutSection(backend="vllm", vllm=section),
        SamplingSection(max_new_tokens=24, max_prompt_tokens=40),
        SimpleNamespace(rank=0, local_rank=0, device=torch.device("cpu")),
        dtype="float32",
        eos=[tokenizer.eos_id],
        decode=tokenizer.text,
        run_folder=folder,
    )


@pytest.fixture(scope="session")
def engine(engine_model, tokenizer, vllm_python, policy, tmp_path_factory) -> Iterator[VllmRollout]:
    """A started engine with the policy's weights."""
    rollout = started(engine_model, tokenizer, vllm_python, tmp_path_factory.mktemp("engine"))
    assert rollout.push(policy.model) is None
    yield rollout
    rollout.close()
