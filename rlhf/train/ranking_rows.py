"""Packed rows of rankings, which carry what the ranking loss compares beside the scores of their answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf.data.encode import EncodedRanking
from rlhf.data.packing import PackedRow, pack_trees, trees_of
from rlhf.train.margins import margins_of


def pack_rankings(rankings: Sequence[EncodedRanking], *, margin_scale: float | None = None) -> PackedRow:
    """Rankings as one row on the host, carrying tables of B prompts by K answers, the largest number of a prompt.

    `ranks` [B, K] int64, 1 = best; `mask` [B, K] bool, True = an answer; `places` [P] int64, where the score at each
    read position belongs in the flattened table; with `margin_scale` also `margins` [B, K, K] of the judge's scores.
    An idle row is one prompt of one masked answer, so that it has a graph and no loss.
    """
    sizes = [len(item.answers) for item in rankings] or [1]
    width = max(sizes)
    filled = torch.arange(width)[None, :] < torch.tensor(sizes)[:, None]
    ranks = torch.zeros(filled.shape, dtype=torch.int64)
    for number, item in enumerate(rankings):
        ranks[number, : len(item.ranks)] = torch.tensor(item.ranks)
    row = pack_trees(trees_of(rankings)).carrying(
        ranks=ranks, mask=filled if rankings else torch.zeros_like(filled), places=filled.flatten().nonzero()[:, 0]
    )
    return row if margin_scale is None else row.carrying(margins=margins_of(rankings, width, margin_scale))


def score_table(flat: Tensor, row: PackedRow) -> Tensor:
    """Scores [P] in the order of the row as a table [B, K], 0 where there is no answer."""
    mask = row.carried["mask"]
    return flat.new_zeros(mask.numel()).scatter(0, row.carried["places"], flat).view(mask.shape)
