"""Metrics of the answers of one iteration: variety, repetition, script, register, and whether reward follows length.

Cheap enough for every iteration: about 20 ms for 128 answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlhf.evaluate.answers.measures import measure

NAMES = {
    "distinct_1": "distinct1",
    "distinct_2": "distinct2",
    "repeated_token_share": "repeated",
    "hangul_share": "hangul",
    "polite_share": "polite",
    "length_chars": "length_chars",
}  # as logged, and as rlhf.evaluate.answers.measures has them


class LineFit(NamedTuple):
    """slope: reward units per token; correlation: the slope with both sides in standard deviations."""

    slope: float
    correlation: float


def answer_metrics(texts: Sequence[str], num_tokens: Sequence[int], scores: Sequence[float]) -> dict[str, float]:
    """Metrics of one iteration's answers, by the name they are logged under.

    distinct_1, distinct_2    unique words and word pairs divided by all of them, over all answers
    repeated_token_share      mean over answers of the share of words that equal one of the 8 before them
    hangul_share              share of the letters of all answers that are Hangul
    polite_share              share of all sentences that end politely; an empty answer is one that does not
    length_chars              mean characters per answer
    reward_length_slope       reward units per response token, by least squares
    reward_length_correlation the same in standard units, -1 to 1; 0 where score or length does not vary

    Args:
        texts: decoded answers, at least one.
        num_tokens: response tokens of each, EOS included.
        scores: of each, in reward units.
    """
    means = measure([[text] for text in texts], [[True]] * len(texts), set(NAMES.values())).means()
    fit = line_fit(num_tokens, scores)
    return {
        **{logged: means[name] for logged, name in NAMES.items()},
        "reward_length_slope": fit.slope,
        "reward_length_correlation": fit.correlation,
    }


def line_fit(x: Sequence[float], y: Sequence[float]) -> LineFit:
    """Least squares of y on x; a slope of 0 where either does not vary."""
    across, up = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if np.ptp(across) == 0 or np.ptp(up) == 0:  # before the means are taken off: rounding would leave a spread
        return LineFit(0.0, 0.0)
    across, up = across - across.mean(), up - up.mean()
    spread, height, shared = (across**2).sum(), (up**2).sum(), (across * up).sum()
    return LineFit(float(shared / spread), float(shared / np.sqrt(spread * height)))
