"""vLLM on a CPU, in its own environment: `make test-vllm`, or VLLM_PYTHON=ENV/bin/python pytest -m vllm.

`engine_model` is a GPT-NeoX with heads of 32 numbers, the smallest that vLLM's CPU attention has. Engines start in
about 20 s each, so that one serves many tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf.config.rollout import RolloutSection, VllmSection
from rlhf.config.sections import SamplingSection
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.models.loading import PackedCausalLM, load_causal_lm
from rlhf.rollout.vllm.client import VllmRollout
from rlhf.rollout.vllm.start import start_engine
from tests.support.vllm_engine import engine_python, make_engine_model


@pytest.fixture(scope="session")
def vllm_python() -> str:
    return engine_python()


@pytest.fixture(scope="session")
def engine_model(tmp_path_factory, tiny_tokenizer) -> Path:
    return make_engine_model(tmp_path_factory.mktemp("engine_model"), tiny_tokenizer)


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
