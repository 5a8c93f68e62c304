"""Optimizers of an engine: what they are made with, and groups whose gradients are dropped."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rlhf.config.sections import OptimizerFields
from rlhf.engine.wrapping import adamw, drop_gradients


def groups_of(*parameters: nn.Parameter) -> list[dict[str, Any]]:
    return [{"params": [each], "weight_decay": 0.5} for each in parameters]


def test_the_first_step_by_hand() -> None:
    """Decay and Adam from 1.0 at a gradient of 3: 1 * (1 - 0.1 * 0.5) - 0.1 * 3 / (3 + 1), with epsilon 1."""
    parameter = nn.Parameter(torch.ones(1))
    fields = OptimizerFields(lr=0.1, beta1=0.6, beta2=0.8, epsilon=1.0)
    optimizer = adamw(groups_of(parameter), fields, offload=False, on_gpu=False)
    parameter.grad = torch.tensor([3.0])
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.95 - 0.1 * 3 / 4]))
    assert optimizer.param_groups[0]["betas"] == (0.6, 0.8)


def test_a_group_without_gradients_keeps_its_weights_and_has_no_moments() -> None:
    moved, kept = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = adamw(groups_of(moved, kept), OptimizerFields(lr=0.1), offload=False, on_gpu=False)
    for each in (moved, kept):
        each.grad = torch.ones(2)
    drop_gradients(optimizer.param_groups[1:])
    optimizer.step()
    assert kept.tolist() == [1.0, 1.0]
    assert kept not in optimizer.state
    assert moved[0].item() < 0.9
