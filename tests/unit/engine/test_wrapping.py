"""Optimizers of an engine: what they are made with, and groups that are not stepped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rlhf.config.sections import OptimizerFields
from rlhf.engine.gradients import SkippedGroups
from rlhf.engine.optimizers import optimizer_of


def groups_of(*parameters: nn.Parameter) -> list[dict[str, Any]]:
    return [{"params": [each], "weight_decay": 0.5} for each in parameters]


@pytest.mark.parametrize("offload", [False, True])
def test_the_first_step_by_hand(offload: bool) -> None:
    """Decay and Adam from 1.0 at a gradient of 3: 1 * (1 - 0.1 * 0.5) - 0.1 * 3 / (3 + 1), with epsilon 1."""
    parameter = nn.Parameter(torch.ones(1))
    fields = OptimizerFields(lr=0.1, beta1=0.6, beta2=0.8, epsilon=1.0)
    optimizer = optimizer_of(groups_of(parameter), fields, offload=offload)
    parameter.grad = torch.tensor([3.0])
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.95 - 0.1 * 3 / 4]))
    assert optimizer.param_groups[0]["betas"] == (0.6, 0.8)


@pytest.mark.parametrize("offload", [False, True])
def test_a_skipped_group_keeps_its_weights_and_has_no_moments(offload: bool) -> None:
    """With offload its buffer is there again after the call, cleared, for DeepSpeed to write into."""
    moved, kept = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = optimizer_of(groups_of(moved, kept), OptimizerFields(lr=0.1), offload=offload)
    for each in (moved, kept):
        each.grad = torch.ones(2)
    buffer, skipped = kept.grad, SkippedGroups(keeps_buffers=offload)
    skipped.skip(optimizer.param_groups[1:])
    optimizer.step()
    skipped.restore()
    assert kept.tolist() == [1.0, 1.0]
    assert kept not in optimizer.state
    assert moved[0].item() < 0.9
    if offload:
        assert kept.grad is buffer
        assert kept.grad.tolist() == [0.0, 0.0]
    else:
        assert kept.grad is None


def test_the_first_step_of_adafactor_by_hand() -> None:
    """A vector at 1.0, decay 0.5: its first second moment is the squared gradient, so that the update is its sign, of
    root mean square 1 and not clipped: 1 - 0.1 - 0.1 * 0.5."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = optimizer_of(groups_of(parameter), OptimizerFields(optimizer="adafactor", lr=0.1), offload=False)
    parameter.grad = torch.tensor([3.0, -0.2])
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.95 - 0.1, 0.95 + 0.1]))


def test_the_first_step_in_eight_bits_is_that_of_adamw() -> None:
    """The first moments of equal gradients are exact in 8 bits: 1 * (1 - 0.1 * 0.5) - 0.1 * 3 / (3 + 1)."""
    parameter = nn.Parameter(torch.ones(4096))
    fields = OptimizerFields(optimizer="adamw8bit", lr=0.1, epsilon=1.0)
    optimizer = optimizer_of(groups_of(parameter), fields, offload=False)
    parameter.grad = torch.full((4096,), 3.0)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((4096,), 0.95 - 0.1 * 3 / 4), rtol=1e-4, atol=0)
    assert optimizer.state[parameter]["state1"].dtype == torch.uint8
