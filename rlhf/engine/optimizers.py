"""The optimizers that `optimizer` names, and what each needs in its parameter groups."""

from __future__ import annotations

from typing import Any

import torch

from rlhf.config.sections import OptimizerFields
from rlhf.engine.op_builds import guard_op_builds


def optimizer_options(fields: OptimizerFields) -> dict[str, Any]:
    """Settings of a parameter group, or of all of them.

    Adafactor is given lr as it is: no relative step, no scaling by a weight's size, no first moment.
    """
    if fields.optimizer == "adafactor":
        return {"lr": fields.lr, "scale_parameter": False, "relative_step": False, "warmup_init": False, "beta1": None}
    return {"lr": fields.lr, "betas": (fields.beta1, fields.beta2), "eps": fields.epsilon}


def optimizer_of(groups: list[dict[str, Any]], fields: OptimizerFields, *, offload: bool) -> torch.optim.Optimizer:
    """The optimizer over these groups; with `offload` DeepSpeed's AdamW, for states in CPU memory whatever the device
    of the weights.

    DeepSpeed compiles that one at its first use on a machine. Source: arXiv:1711.05101 (AdamW); arXiv:2110.02861
    (8-bit states in blocks, with bitsandbytes); arXiv:1804.04235 (Adafactor, of transformers).
    """
    options = optimizer_options(fields)
    match fields.optimizer:
        case "adamw8bit":
            import bitsandbytes

            return bitsandbytes.optim.AdamW8bit(groups, **options)  # type: ignore[attr-defined, no-any-return]
        case "adafactor":
            from transformers.optimization import Adafactor

            return Adafactor(groups, **options)
    if not offload:
        return torch.optim.AdamW(groups, fused=True, **options)
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    guard_op_builds()
    return DeepSpeedCPUAdam(groups, adamw_mode=True, **options)
