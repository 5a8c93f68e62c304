"""Zero and unit of a reward model's scores."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor


class ZeroPoint(NamedTuple):
    """Shifted scores are scale * score + offset; mean and deviation are those of the scores given, in reward units."""

    scale: float
    offset: float
    mean: float
    deviation: float

    def shifted(self, score: float) -> float:
        """A score of the trained model as the exported model gives it."""
        return self.scale * score + self.offset


def zero_point(scores: Tensor, normalise: Literal["mean", "mean_and_deviation", "none"]) -> ZeroPoint:
    """The shift that gives `scores` mean 0 and, with mean_and_deviation, standard deviation 1 (as of a population).

    Shapes:  scores [N] reward units, N >= 1.
    Raises:  ValueError if scores are not [N], or a deviation of 1 is asked for and all scores are equal.
    Source:  arXiv:2203.02155 section 3.5 (labeler demonstrations get a mean score of 0).
    """
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"scores have shape {list(scores.shape)}, expected [N] with N >= 1")
    wide = scores.double()
    mean, deviation = float(wide.mean()), float(wide.std(correction=0))
    if normalise == "none":
        return ZeroPoint(1.0, 0.0, mean, deviation)
    if normalise == "mean":
        return ZeroPoint(1.0, -mean, mean, deviation)
    if not deviation > 0:
        raise ValueError(f"{len(scores)} score(s) have deviation {deviation}: no scale gives them a deviation of 1")
    return ZeroPoint(1 / deviation, -mean / deviation, mean, deviation)
