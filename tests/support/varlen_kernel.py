"""torch's variable-length attention by its definition, on any device and in any dtype, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor


def varlen_by_definition(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool = False,
    shift: int = 0,
) -> Tensor:
    """Causal attention in each segment, aligned to its last key. `shift` moves the diagonal: a planted fault."""
    assert window_size == (-1, 0)
    assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
    groups = q.shape[1] // k.shape[1]
    assert enable_gqa == (groups > 1)
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    pieces = []
    for segment in range(len(cu_q) - 1):
        rows, keys = slice(cu_q[segment], cu_q[segment + 1]), slice(cu_k[segment], cu_k[segment + 1])
        scores = torch.einsum("qhd,khd->hqk", q[rows], k[keys]).float() * scale
        num_q, num_k = scores.shape[1:]
        seen = torch.arange(num_k)[None] <= torch.arange(num_q)[:, None] + num_k - num_q + shift
        seen[:, 0] = True
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).to(q.dtype)
        pieces.append(torch.einsum("hqk,khd->qhd", weights, v[keys]))
    return torch.cat(pieces)
