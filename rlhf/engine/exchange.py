"""Other values in the place of trained weights for a while: each rank exchanges what it holds, and nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def local_part(parameter: nn.Parameter) -> Tensor:
    """This rank's part of a parameter: all of it, or its ZeRO-3 partition."""
    partition: Tensor | None = getattr(parameter, "ds_tensor", None)
    return parameter.data if partition is None else partition.data


@contextmanager
def exchanged(
    parameters: Sequence[nn.Parameter],
    values: Sequence[Tensor],
    release: Callable[[], None],
    *,
    aside: torch.device | None = None,
) -> Iterator[None]:
    """Puts `values`, this rank's parts, in the place of the parameters, which return bit for bit.

    Args:
        release: called before weights are exchanged; must drop gathered copies, which would be stale.
        aside: where the parameters' own values wait; None is where they are.
    """
    live = [_copy(local_part(parameter), aside) for parameter in parameters]
    _put(parameters, values, release)
    try:
        yield
    finally:
        _put(parameters, live, release)


def _copy(part: Tensor, aside: torch.device | None) -> Tensor:
    return part.detach().clone() if aside is None else part.detach().to(aside, copy=True)


@torch.no_grad()
def _put(parameters: Sequence[nn.Parameter], values: Sequence[Tensor], release: Callable[[], None]) -> None:
    release()
    for parameter, value in zip(parameters, values, strict=True):
        local_part(parameter).copy_(value)
