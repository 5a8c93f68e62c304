"""DeepSpeed engines: how they are made, and what is checked before they step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rlhf.config.sections import DeepSpeedSection
from rlhf.engine.ranks import Ranks
from rlhf.engine.zero_config import needs_allreduce, zero_config
from rlhf.errors import NonFiniteError
from rlhf.models.loading import count_parameters


def wrapped_engine(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    section: DeepSpeedSection,
    ranks: Ranks,
    *,
    dtype: str,
    max_grad_norm: float,
) -> Any:
    """A DeepSpeed engine around a trained model; max_grad_norm 0 turns its own clipping off."""
    import deepspeed

    on_gpu, trained = ranks.device.type != "cpu", count_parameters(model)[1]
    config = zero_config(section, dtype=dtype, max_grad_norm=max_grad_norm, on_gpu=on_gpu, trained=trained)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if not needs_allreduce(section, dtype=dtype, world_size=ranks.world_size):
        engine.enable_backward_allreduce = False
    return engine


def not_finite(norm: float, number: int) -> NonFiniteError:
    return NonFiniteError(
        f"the gradient norm is {norm}; the weights were not updated",
        where=f"update {number}",
        fix="lower the learning rate, or look at the rows of this step",
    )
