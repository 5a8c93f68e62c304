"""The order of rows: one stream a run, the same for every world size, resumable at any row.

Epoch e is a permutation drawn from (seed, e); batches are cut from the stream of epochs one after another,
so the only state is how many rows were consumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rlhf.errors import DataError


@dataclass(frozen=True, slots=True)
class RowStream:
    """Rows of several weighted sources in order.

    Args:
        sizes: rows a source; rows are numbered through all sources.
        weights: expected passes over each source in one epoch.
        seed: run seed.
        batch_size: rows a step.
        epochs: passes over the stream; fractions allowed.
        first_by: a number a row, by which the first epoch is sorted, equal ones shuffled; None shuffles it like others.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int
    batch_size: int
    epochs: float
    first_by: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if any(round(size * weight) < 1 for size, weight in zip(self.sizes, self.weights, strict=True)):
            problem = f"of sources of {list(self.sizes)} rows with weights {list(self.weights)} one leaves no row"
            raise DataError(problem, where="data.train", fix="raise its weight, add rows, or leave it out")

    @property
    def epoch_size(self) -> int:
        """Rows of one epoch."""
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

        With `limit` off the stream goes on past `epochs`.
        """
        stop = consumed + self.batch_size
        if limit:
            stop = min(stop, self._total)
        rows: list[int] = []
        while consumed + len(rows) < stop:
            epoch, offset = divmod(consumed + len(rows), self.epoch_size)
            order = self._epoch(epoch)
            rows.extend(order[offset : offset + stop - consumed - len(rows)].tolist())
        return rows

    def _epoch(self, epoch: int) -> np.ndarray:
        """Shuffled rows of one epoch: whole passes of each source, then a random part for the fraction."""
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
