"""The type that an evaluation loads a model in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from rlhf.config.flag_values import Dtype
from rlhf.models.scoring import scoring_model
from rlhf.models.stored_dtype import evaluation_dtype

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


def stored_in(dtype: str | None, folder: Path, to: Path) -> str:
    """A copy of the folder whose configuration states this type."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    config.pop("dtype", None)
    (to / "config.json").write_text(json.dumps(config if dtype is None else config | {"dtype": dtype}))
    return str(to)


@pytest.mark.parametrize(
    ("stored", "wanted", "on_card", "on_cpu"),
    [
        ("bfloat16", "auto", "bfloat16", "float32"),
        ("float16", "auto", "float16", "float32"),
        ("float32", "auto", "float32", "float32"),
        (None, "auto", "float32", "float32"),
        ("float64", "auto", "float32", "float32"),
        ("bfloat16", "float32", "float32", "float32"),
        ("float32", "bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_a_card_takes_the_folders_type_and_a_cpu_float32(
    stored: str | None, wanted: Dtype, on_card: str, on_cpu: str, tiny_reward: Path, tmp_path: Path
) -> None:
    folder = stored_in(stored, tiny_reward, tmp_path / "model")
    assert [evaluation_dtype(folder, wanted, device) for device in (CARD, CPU)] == [on_card, on_cpu]


def test_a_reward_model_is_scored_in_the_type_that_was_asked_for(tiny_reward: Path) -> None:
    assert scoring_model(str(tiny_reward)).model.score.weight.dtype == torch.float32
    assert scoring_model(str(tiny_reward), "bfloat16").model.score.weight.dtype == torch.bfloat16
