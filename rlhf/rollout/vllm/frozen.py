"""An engine for a frozen model that a command loads: it reads the folder itself, and is compared with transformers."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from rlhf.config.rollout import RolloutSection
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import pack_sequences
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError, EngineError, ModelError, RlhfError
from rlhf.models.loading import load_causal_lm, model_config
from rlhf.ops.logprobs import token_logprobs
from rlhf.rollout.base import Floats
from rlhf.rollout.vllm.client import VllmRollout, check_rows
from rlhf.rollout.vllm.start import load_engine, require_vllm

KEY = re.compile(r"\brollout\.(vllm\.)?(backend|python|gpu_memory|cpu_cache_gib|eager|timeout_s|start_timeout_s)\b(=?)")


def frozen_engine(
    folder: str,
    rollout: RolloutSection,
    ranks: Ranks,
    *,
    max_length: int,
    max_answers: int | None,
    dtype: str,
    eos: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    log: Path,
    raw_logprobs: bool = False,
) -> VllmRollout:
    """Answers of a model folder by vLLM; whoever calls closes it.

    The model is first loaded by transformers, scores 8 fixed rows and is freed, so that the engine has the device to
    itself; then the engine reads the folder and must agree on these rows.

    Args:
        folder: holds the model and its tokenizer.
        log: file that gets what the engine writes.

    The others are those of `load_engine`. Raises: ConfigError, EngineError, which name the flags of commands;
    ModelError for a model that is no folder.
    """
    if not Path(folder).is_dir():
        raise ModelError(
            f"{folder} is not a folder on this machine, and the engine reads folders alone",
            where="--model",
            fix="download it first: hf download NAME --local-dir FOLDER; or --backend transformers",
        )
    with keys_as_flags():
        require_vllm(rollout, ranks.device)
        expected = _scores(folder, dtype, ranks.device)
        engine = load_engine(
            folder,
            rollout,
            ranks,
            max_length=max_length,
            max_answers=max_answers,
            dtype=dtype,
            eos=eos,
            decode=decode,
            log=log,
            raw_logprobs=raw_logprobs,
        )
        try:
            engine.check(expected)
        except BaseException:
            engine.close()
            raise
    return engine


@torch.no_grad()
def _scores(folder: str, dtype: str, device: torch.device) -> list[Floats]:
    """Log-probabilities of the rows that engines are compared by, from the second token on in nats."""
    packed = load_causal_lm(folder, dtype=dtype, device=device).to(device).eval()
    found = []
    for ids in check_rows(int(model_config(folder).get_text_config().vocab_size)):
        row = pack_sequences([EncodedSequence(ids, np.arange(len(ids)) > 0)]).to(device)
        logits = packed(row.input_ids, row.position_ids, row.segments, row.positions)
        found.append(token_logprobs(logits, row.labels).float().cpu().numpy())
    del packed
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


@contextmanager
def keys_as_flags() -> Iterator[None]:
    """Errors of the block name the flags of commands in place of configuration keys."""
    try:
        yield
    except (ConfigError, EngineError) as error:
        raise with_flags(error) from error


def with_flags(error: RlhfError) -> RlhfError:
    """The error with the flags of commands in place of configuration keys."""

    def flag(found: re.Match[str]) -> str:
        prefix, name, equals = found.groups()
        return f"--{(prefix or '').replace('.', '-')}{name.replace('_', '-')}{' ' if equals else ''}"

    problem, where, expected, fix = (
        KEY.sub(flag, text) for text in (error.problem, error.where, error.expected, error.fix)
    )
    return type(error)(problem, where=where, expected=expected, fix=fix)
