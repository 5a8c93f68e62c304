"""The order of rows: one stream per run, the same for every world size, resumable at any row.

Epoch e is a permutation drawn from (seed, e), and batches are cut from the sequence of epochs, so the number of
consumed rows is the only state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf.errors import DataError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class RowStream:
    """Rows of several weighted sources in order.

    Args:
        sizes: rows per source; rows are numbered through all sources.
        weights: expected passes over each source per epoch.
        seed: run seed.
        batch_size: rows per step.
        epochs: passes over the stream, possibly fractional.
        first_by: a number per row by which the first epoch is sorted, ties shuffled; None shuffles it like the others.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int
    batch_size: int
    epochs: float
    first_by: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if any(round(size * weight) < 1 for size, weight in zip(self.sizes, self.weights, strict=True)):
            problem = f"of sources of {list(self.sizes)} rows with weights {list(self.weights)} one gives no row"
            raise DataError(problem, where="data.train", fix="raise its weight, add rows, or remove it")

    @property
    def epoch_size(self) -> int:
        return sum(round(size * weight) for size, weight in zip(self.sizes, self.weights, strict=True))

    @property
    def num_steps(self) -> int:
        """Batches of the whole run; the last may be short."""
        return math.ceil(self._total / self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, math.ceil(self.epoch_size / self.batch_size))

    @property
    def _total(self) -> int:
        return max(1, round(self.epoch_size * self.epochs))

    def batch(self, consumed: int, *, limit: bool = True) -> list[int]:
        """Row numbers of the batch that starts after `consumed` rows; empty at the end of the run.

        Without `limit` the stream continues past `epochs`.
        """
        stop = consumed + self.batch_size
        if limit:
            stop = min(stop, self._total)
        return self.rows(consumed, stop - consumed)

    def rows(self, consumed: int, count: int) -> list[int]:
        """The `count` row numbers after `consumed` rows, in as many passes as that takes, also past `epochs`."""
        found: list[int] = []
        while len(found) < count:
            epoch, offset = divmod(consumed + len(found), self.epoch_size)
            found.extend(self._epoch(epoch)[offset : offset + count - len(found)].tolist())
        return found

    def _epoch(self, epoch: int) -> np.ndarray:
        """Shuffled rows of one epoch: whole passes of each source, then a random part for the fraction."""
        import numpy as np  # here: what is checked before a run needs the counts alone

        generator = np.random.default_rng([self.seed, epoch])
        chosen, first = [], 0
        for size, weight in zip(self.sizes, self.weights, strict=True):
            rows, wanted = np.arange(first, first + size), round(size * weight)
            chosen += [rows] * (wanted // size)
            chosen.append(generator.permutation(rows)[: wanted % size])
            first += size
        order = generator.permutation(np.concatenate(chosen))
        if self.first_by is None or epoch > 0:
            return order
        return order[np.argsort(np.asarray(self.first_by)[order], kind="stable")]
