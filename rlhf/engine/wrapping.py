"""Around one DeepSpeed engine: how it starts, is called, and is read back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.config.sections import DeepSpeedSection, OptimizerFields
from rlhf.data.packing import PackedRow
from rlhf.engine.ranks import Ranks
from rlhf.engine.zero_config import needs_allreduce, zero_config
from rlhf.errors import NonFiniteError
from rlhf.models.head import LossRequest, Request, Result


def wrapped_engine(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    section: DeepSpeedSection,
    ranks: Ranks,
    *,
    dtype: str,
    max_grad_norm: float,
) -> Any:
    """A DeepSpeed engine around a model that learns; 0 turns its own clipping off."""
    import deepspeed

    on_gpu = ranks.device.type != "cpu"
    config = zero_config(section, dtype=dtype, max_grad_norm=max_grad_norm, on_gpu=on_gpu)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if not needs_allreduce(section, dtype=dtype, world_size=ranks.world_size):
        engine.enable_backward_allreduce = False
    return engine


def run_row(module: Any, row: PackedRow, **options: Any) -> Tensor:
    """A packed model's own output for a row: logits of a language model, scores of a scalar model."""
    return module(
        input_ids=row.input_ids,
        position_ids=row.position_ids,
        segments=row.segments,
        positions=row.positions,
        **options,
    )


def request_row(module: Any, row: PackedRow, request: Request[Result], **options: Any) -> Result:
    """What a packed language model answers to a request about a row."""
    answer: Any = run_row(module, row, request=request, **options)
    return answer


def loss_request(row: PackedRow, total: float) -> LossRequest:
    """Asks for the cross-entropy of the row's labels, divided by the global `total`."""
    return LossRequest(row.labels, row.weights, torch.tensor(total, device=row.weights.device))


@contextmanager
def evaluating(engine: Any) -> Iterator[None]:
    """Eval mode while active."""
    training = engine.training
    engine.eval()
    try:
        yield
    finally:
        engine.train(training)


def drop_gradients(groups: Sequence[dict[str, Any]]) -> None:
    """Takes gradients away, so that an optimizer leaves weights, moments and decay of these groups alone."""
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = None


def not_finite(norm: float, number: int) -> NonFiniteError:
    return NonFiniteError(
        f"the gradient norm is {norm}; the weights were not updated",
        where=f"update {number}",
        fix="lower the learning rate, or look at the rows of this step",
    )


def adamw(
    groups: list[dict[str, Any]], fields: OptimizerFields, *, offload: bool, on_gpu: bool
) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": fields.lr, "betas": (fields.beta1, fields.beta2), "eps": fields.epsilon}
    if offload and on_gpu:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(groups, adamw_mode=True, **options)
    return torch.optim.AdamW(groups, fused=True, **options)
