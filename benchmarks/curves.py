"""Reward against samples seen, over seeds: intervals, how soon a level is reached, and the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WINDOW = 3  # iterations that a level is averaged over
RESAMPLES, LEVEL = 2000, 0.95
COLOURS = ("#1f6f8b", "#d1495b")
LABELS = {"ours": "this project", "trl": "TRL 1.12.0"}


def trailing(curve: Sequence[float]) -> list[float]:
    """Each point as the mean of itself and the points before it, at most three."""
    return [float(np.mean(curve[max(0, end - WINDOW) : end])) for end in range(1, len(curve) + 1)]


def final(curve: Sequence[float]) -> float:
    """The mean of the last three iterations."""
    return trailing(curve)[-1]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over seeds, by Student's t; infinite for one seed."""
    from scipy.stats import t

    if len(values) < 2:
        return (-math.inf, math.inf)
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return (float(np.mean(values)) - half, float(np.mean(values)) + half)


def samples_to_reach(curve: Sequence[float], target: float, batch: int) -> float:
    """Samples seen when the trailing mean first is at `target` or above; infinite when it never is."""
    reached = [number for number, level in enumerate(trailing(curve), start=1) if level >= target]
    return float(reached[0] * batch) if reached else math.inf


def sample_ratio(ours: np.ndarray, theirs: np.ndarray, batch: int) -> float:
    """Samples we need to reach their final reward, over all of theirs; mean curves of [seeds, iterations]."""
    return samples_to_reach(ours.mean(0), final(theirs.mean(0)), batch) / (theirs.shape[1] * batch)


def early_ratio(ours: np.ndarray, theirs: np.ndarray, batch: int) -> float:
    """Samples we need for nine tenths of the way from their first to their final reward, over what they need for it.

    Near the optimum both sides are level and noise decides when the final reward is met; here it does not.
    """
    mean = theirs.mean(0)
    target = mean[0] + 0.9 * (final(mean) - mean[0])
    return samples_to_reach(ours.mean(0), target, batch) / samples_to_reach(mean, target, batch)


def ratio_interval(ours: np.ndarray, theirs: np.ndarray, batch: int) -> tuple[float, float]:
    """95 % interval of `sample_ratio` by drawing seeds of each side anew."""
    generator = np.random.default_rng(17)

    def drawn(table: np.ndarray) -> np.ndarray:
        return table[generator.integers(len(table), size=len(table))]

    found = sorted(sample_ratio(drawn(ours), drawn(theirs), batch) for _ in range(RESAMPLES))
    tail = round((1 - LEVEL) / 2 * RESAMPLES)
    return found[tail], found[-1 - tail]


def plot(rows: Sequence[dict[str, Any]], batch: int, out: Path, labels: Mapping[str, str] = LABELS) -> None:
    """A panel a task: the mean over seeds of both sides with its interval, and the optimum where it is known."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(1, len(rows), figsize=(4 * len(rows), 3.2), squeeze=False, layout="constrained")
    for axes, row in zip(grid[0], rows, strict=True):
        for (side, label), colour in zip(labels.items(), COLOURS, strict=True):
            table = np.asarray(row[side]["curves"])
            samples = np.arange(1, table.shape[1] + 1) * batch
            axes.plot(samples, table.mean(0), color=colour, label=f"{label}, lr {row[side]['lr']:g}")
            if len(table) > 1:
                low, high = zip(*(interval(column) for column in table.T), strict=True)
                axes.fill_between(samples, low, high, color=colour, alpha=0.15, linewidth=0)
        if row["optimum"] is not None:
            axes.axhline(row["optimum"], color="grey", linestyle=":", linewidth=1)
        axes.set(title=row["task"], xlabel="samples seen")
        axes.legend(frameon=False, fontsize=8)
    grid[0][0].set_ylabel("reward")
    figure.savefig(out)
    pyplot.close(figure)
