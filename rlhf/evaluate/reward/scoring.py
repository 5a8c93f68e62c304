"""Scores of a reward model, by packed forward passes in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml

from rlhf.config.flag_values import Dtype
from rlhf.data.encode import Ids
from rlhf.data.packing import Tree, pack_trees
from rlhf.errors import ModelError
from rlhf.evaluate.packed_forward import forward_packed, in_micro_batches
from rlhf.models.loading import PackedScalarModel, load_scalar_model
from rlhf.models.stored_dtype import evaluation_dtype

DEFAULT_MAX_LENGTH = 1024


def scoring_model(path: str, dtype: Dtype = "auto") -> PackedScalarModel:
    """The reward model of a folder on this machine's device; see `evaluation_dtype` for "auto".

    Raises: ModelError when it cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_scalar_model(path, dtype=evaluation_dtype(path, dtype, device), device=device).to(device)


def tree_scores(
    reward: PackedScalarModel, trees: Sequence[Tree], advance: Callable[[int], None] = lambda count: None
) -> list[list[float]]:
    """The scores of each tree's answers, in order, in reward units.

    Args:
        advance: called with the number of trees in each micro-batch that is done.
    """

    def read(items: list[int]) -> list[list[float]]:
        flat = iter(forward_packed(reward, pack_trees([trees[item] for item in items])).tolist())
        advance(len(items))
        return [[next(flat) for _ in trees[item][1]] for item in items]

    return in_micro_batches([len(prompt) + sum(map(len, answers)) for prompt, answers in trees], read)


def answer_scores(reward: PackedScalarModel, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """The score of each (prompt, answer), in reward units."""
    return [score for (score,) in tree_scores(reward, [(prompt, [answer]) for prompt, answer in pairs])]


def trained_length(model: str) -> int:
    """Tokens of a sequence in training, from the run's config.yaml; 1024 for a model away from its run folder."""
    file = Path(model).parent / "config.yaml"
    if not file.is_file():
        return DEFAULT_MAX_LENGTH
    try:
        return int(yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["max_length"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"no data.max_length can be read from {file}: {error!r}", fix="use a run folder made by stage 2"
        ) from error
