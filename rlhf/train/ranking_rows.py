"""Packed rows of rankings, which carry what the ranking loss compares beside the scores of their answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf.data.encode import EncodedMarked, EncodedRanking
from rlhf.data.packing import PackedRow, pack_trees, trees_of
from rlhf.train.margins import margins_of


def pack_rankings(rankings: Sequence[EncodedRanking], *, margin_scale: float | None = None) -> PackedRow:
    """Rankings as one row on the host, read at the end of answers, carrying their `answer_tables`; with `margin_scale`
    also `margins` [B, K, K] of the judge's scores.
    """
    tables = answer_tables(rankings)
    row = pack_trees(trees_of(rankings)).carrying(**tables)
    width = tables["mask"].shape[1]
    return row if margin_scale is None else row.carrying(margins=margins_of(rankings, width, margin_scale))


def answer_tables(items: Sequence[EncodedRanking | EncodedMarked]) -> dict[str, Tensor]:
    """Tables of B prompts by K answers, the largest number of a prompt.

    `ranks` [B, K] int64, 1 = best; `mask` [B, K] bool, True = an answer; `places` [P] int64, where the number of each
    answer belongs in the flattened table. Without items there is one prompt of one masked answer, so that an idle row
    has a graph and no loss.
    """
    sizes = [len(item.answers) for item in items] or [1]
    filled = torch.arange(max(sizes))[None, :] < torch.tensor(sizes)[:, None]
    ranks = torch.zeros(filled.shape, dtype=torch.int64)
    for number, item in enumerate(items):
        ranks[number, : len(item.ranks)] = torch.tensor(item.ranks)
    mask = filled if items else torch.zeros_like(filled)
    return {"ranks": ranks, "mask": mask, "places": filled.flatten().nonzero()[:, 0]}


def score_table(flat: Tensor, row: PackedRow) -> Tensor:
    """Scores [P] in the order of the row as a table [B, K], 0 where there is no answer."""
    return scattered(flat, row.carried["places"], row.carried["mask"])


def scattered(flat: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Numbers of answers [P] in the form of `mask` [B, K], each at its place of the flattened table, 0 elsewhere."""
    return flat.new_zeros(mask.numel()).scatter(0, places, flat).view(mask.shape)
