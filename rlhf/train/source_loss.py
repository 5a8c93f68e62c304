"""Mean loss by data source, which shows when one source improves at the cost of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow
from rlhf.engine.ranks import Ranks


class SourceLoss:
    """Sums of weighted negative log-likelihood and of weights, by source, over this rank's rows."""

    def __init__(self, names: Sequence[str], ranks: Ranks) -> None:
        self._names, self._ranks = tuple(names), ranks
        self._number = {name: number for number, name in enumerate(self._names)}
        self._sums = torch.zeros(2, len(self._names), dtype=torch.float64, device=ranks.device)

    def labelled(self, row: PackedRow, items: Sequence[EncodedSequence]) -> PackedRow:
        """A row on the host, carrying the number of each position's source; `items` are packed into it (none for an
        idle row)."""
        table = torch.tensor([self._number[item.source] for item in items] or [0])
        return row.carrying(source=table[row.items])

    def add(self, nll: Tensor, row: PackedRow) -> None:
        """Adds nll [P] nats of a labelled row on the device."""
        weights = row.weights.double()
        weighted = torch.where(weights > 0, nll.double() * weights, 0)
        self._sums.index_add_(1, row.carried["source"], torch.stack([weighted, weights]))

    def means(self, name: str) -> dict[str, float]:
        """The mean over all rows of all ranks in nats per token, as `name`; with several sources also those of each,
        as `name_by_source/SOURCE`."""
        loss, weight = torch.tensor(self._ranks.global_sum(*self._sums.flatten())).view(2, -1).double()
        found = {name: float(loss.sum() / weight.sum().clamp(min=1e-12))}
        if len(self._names) > 1:
            seen = zip(self._names, loss.tolist(), weight.tolist(), strict=True)
            found |= {f"{name}_by_source/{source}": each / count for source, each, count in seen if count > 0}
        return found


def source_names(items: Iterable[EncodedSequence]) -> list[str]:
    """The sources of these sequences, in order."""
    return sorted({item.source for item in items})
