"""Gradients that an update must not use: of groups that are not stepped, and of parameters that took no part.

ZeRO-offload keeps one gradient buffer per flat tensor in CPU memory for the whole run: it is overwritten where a
parameter had a gradient, never cleared, and the step needs it. Elsewhere DeepSpeed makes a new one for each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf.config.sections import DeepSpeedSection


class SkippedGroups:
    """Keeps groups out of one optimizer call: their weights and moments stay as they are.

    Args:
        keeps_buffers: DeepSpeed writes the gradients of later steps into the tensors of these ones (ZeRO-offload).
    """

    def __init__(self, *, keeps_buffers: bool) -> None:
        self._keeps_buffers = keeps_buffers
        self._aside: list[tuple[Tensor, Tensor]] = []

    def skip(self, groups: Sequence[dict[str, Any]]) -> None:
        """Takes the gradients of the groups away; called just before the optimizer's call."""
        for group in groups:
            for parameter in group["params"]:
                if self._keeps_buffers and parameter.grad is not None:
                    self._aside.append((parameter, parameter.grad))
                parameter.grad = None

    def restore(self) -> None:
        """Gives the buffers back, cleared; called just after the optimizer's call."""
        for parameter, gradient in self._aside:
            parameter.grad = gradient.zero_()
        self._aside = []


def update_without_leftovers(engine: Any, section: DeepSpeedSection) -> None:
    """`engine.step()`, in which a parameter has only the gradients of this step.

    DeepSpeed overwrites its buffers in the first backward pass of a step and adds to them in the others. What a
    parameter that is not in the first pass left there in an earlier step would be added to its gradient, and used again
    if it is in no pass: roles of a shared backbone, experts without a token.
    """
    optimizer, stage = engine.optimizer, section.zero_stage
    if section.offload_optimizer:
        _clear_unused(optimizer, stage)
    engine.step()
    if stage == 3:
        optimizer.grad_partitions_flat_buffer.zero_()
    elif section.offload_optimizer:
        for buffer in optimizer.accumulated_grads_in_cpu.values():
            buffer.zero_()


@torch.no_grad()
def _clear_unused(optimizer: Any, stage: int) -> None:
    """Clears the float32 gradients of ZeRO-offload for parameters without a gradient in this step."""
    if stage == 3:
        flats, groups = optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups
        used = optimizer._offload_boundary_param_ids
        numbers = [[(each.ds_id, optimizer.get_param_id(each)) for each in group] for group in groups]
    else:
        flats, groups = optimizer.single_partition_of_fp32_groups, optimizer.params_in_partition
        used = optimizer._offload_accumulated_param_ids
        numbers = [[(number := optimizer.get_param_id(each), number) for each in group] for group in groups]
    for flat, group in zip(flats, numbers, strict=True):
        for mark, number in group:
            if mark not in used:
                *_, start, count = optimizer.grad_position[number]
                flat.grad.view(-1).narrow(0, start, count).zero_()
