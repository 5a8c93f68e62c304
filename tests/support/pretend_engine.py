"""What stands in for DeepSpeed and for torch's variable-length kernel on the pretend GPU: their plain equivalents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class PlainEngine:
    """As much of a DeepSpeed engine at ZeRO 0 as the trained models use; the module is on its device already."""

    global_steps = 0
    training = True

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.module(*args, **options)

    def train(self, mode: bool = True) -> None:
        self.training = mode
        self.module.train(mode)

    def eval(self) -> None:
        self.train(False)

    def backward(self, loss: Tensor, **_: Any) -> None:
        loss.backward()

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.global_steps += 1

    def get_global_grad_norm(self) -> None:
        return None


def plain_engine(module: nn.Module, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> PlainEngine:
    """In place of `wrapped_engine`."""
    return PlainEngine(module, optimizer)


def plain_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """In place of `torch.nn.attention.varlen.varlen_attn`: one masked attention per segment, on the device of all.

    Shapes: query, key, value [tokens, heads, size]; bounds [segments + 1] int32.
    """
    assert query.device == key.device == value.device == query_bounds.device == key_bounds.device
    assert window_size == (-1, 0), "the kernel's causal window"
    ends = [getattr(bounds, "host", bounds).tolist() for bounds in (query_bounds, key_bounds)]
    assert longest_query == max(b - a for a, b in zip(ends[0], ends[0][1:], strict=False))
    assert longest_key == max(b - a for a, b in zip(ends[1], ends[1][1:], strict=False))
    pieces = []
    for number in range(len(ends[0]) - 1):
        mine, seen = (slice(bounds[number], bounds[number + 1]) for bounds in ends)
        own, keys, values = (each.transpose(0, 1)[None] for each in (query[mine], key[seen], value[seen]))
        shape = own.shape[2], keys.shape[2]
        mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril(shape[1] - shape[0])
        attended = scaled_dot_product_attention(own, keys, values, mask, scale=scale, enable_gqa=enable_gqa)
        pieces.append(attended[0].transpose(0, 1))
    return torch.cat(pieces)
