"""Proof of the optimizer that steps in CPU memory against torch's."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf.config.sections import OptimizerFields
from rlhf.doctor.checks import Check
from rlhf.doctor.comparison import compared
from rlhf.engine.optimizers import optimizer_of

FIX = "set deepspeed.offload_optimizer=false, or delete DeepSpeed's built cpu_adam and start again"
FIELDS = OptimizerFields(lr=0.01, weight_decay=0.1, beta1=0.8, beta2=0.95, epsilon=1e-6)
TOLERANCE = 1e-4  # float32 keeps so much of a movement of a hundredth of a weight
STEPS = 3


def optimizer_proof(*, values: int = 67) -> Check:
    """Compares `values` weights after three steps of DeepSpeedCPUAdam with those of torch.optim.AdamW, in float32.

    An odd number of values leaves some beside the vector instructions of the build.
    """
    found, start = _stepped(values, offload=True)
    expected, _ = _stepped(values, offload=False)
    # Weights hardly move in three steps, so the movements are compared.
    pairs = {"three AdamW steps": (found - start, expected - start)}
    return compared("DeepSpeedCPUAdam", pairs, torch.float32, fix=FIX, tolerance=TOLERANCE)


def _stepped(values: int, *, offload: bool) -> tuple[Tensor, Tensor]:
    """Weights after the steps, and before."""
    generator = torch.Generator().manual_seed(14)
    start = torch.randn(values, generator=generator)
    weight = torch.nn.Parameter(start.clone())
    groups = [{"params": [weight], "weight_decay": FIELDS.weight_decay}]
    if offload:
        optimizer = optimizer_of(groups, FIELDS, offload=True)
    else:
        options = {"lr": FIELDS.lr, "betas": (FIELDS.beta1, FIELDS.beta2), "eps": FIELDS.epsilon}
        optimizer = torch.optim.AdamW(groups, **options)  # type: ignore[arg-type]
    for _ in range(STEPS):
        weight.grad = torch.randn(values, generator=generator)
        optimizer.step()
    return weight.detach(), start
