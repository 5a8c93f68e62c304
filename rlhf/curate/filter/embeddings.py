"""Sentence embeddings by any Hugging Face encoder: mean of the token states, centred on the corpus mean, norm 1.

Without centring, unrelated Korean sentences have cosines above 0.5, because all embeddings share a direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.curate.output import progress
from rlhf.errors import ModelError

BATCH = 64
MAX_TOKENS = 512


def embedded(texts: Sequence[str], folder: str) -> NDArray[np.float32]:
    """[N, width] centred embeddings of norm 1 (0 for a text that equals the mean).

    Raises: ModelError when `folder` is not a model folder or lacks a tokenizer.
    """
    tokenizer, model = _loaded(folder)
    limit = min(MAX_TOKENS, getattr(model.config, "max_position_embeddings", MAX_TOKENS) - 2)
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # texts of one length pad little
    vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in progress(range(0, len(order), BATCH), "embedding"):
        numbers = order[start : start + BATCH]
        vectors[numbers] = _averaged(model, tokenizer, [texts[number] for number in numbers], limit)
    vectors -= vectors.mean(axis=0, keepdims=True)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0), dtype=np.float32)


def _loaded(folder: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    if not (Path(folder) / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no config.json", where="--semantic", expected="a Hugging Face encoder's folder"
        )
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(
            f"cannot load {folder}: {error}", where="--semantic", fix="download the folder again"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.padding_side = "right"  # a padded text then has the positions it has alone
    return tokenizer, model.eval()


def _averaged(model: Any, tokenizer: Any, texts: list[str], limit: int) -> NDArray[np.float32]:
    """[B, width] means of the last hidden states over each text's own tokens."""
    import torch

    encoded = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        states = model(**inputs).last_hidden_state.float()
    mask = inputs["attention_mask"].unsqueeze(-1)
    means = states.masked_fill(mask == 0, 0.0).sum(1) / mask.sum(1).clamp(min=1)
    return np.asarray(means.numpy(), dtype=np.float32)
