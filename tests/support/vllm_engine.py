"""vLLM on a CPU for tests: the Python that has it, and a model that its attention can run."""

from __future__ import annotations

import os
from pathlib import Path

from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape
from tests.conftest import VOCABULARY, _saved
from tests.support.launcher import REPOSITORY

SHAPE = TinySize(hidden=64, layers=2, heads=2, vocabulary=VOCABULARY, positions=256)  # heads of 8 have no kernel


def engine_python() -> str:
    """The Python that has vLLM; a missing one is an error, because these tests run only when they are asked for."""
    path = Path(os.environ.get("VLLM_PYTHON") or REPOSITORY / ".venv-vllm" / "bin" / "python")
    assert path.is_file(), f"{path} is not there: run make test-vllm, or set VLLM_PYTHON=ENV/bin/python"
    return str(path)


def make_engine_model(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A GPT-NeoX causal LM of 2 layers of 64, with its tokenizer."""
    return _saved(GPTNeoXForCausalLM, polyglot_shape(SHAPE, len(tokenizer)), folder, tokenizer, seed=4)
