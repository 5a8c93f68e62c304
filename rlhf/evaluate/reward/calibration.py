"""Whether a score difference is the probability it stands for, and how scores correlate with length and rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import kendalltau, pearsonr, spearmanr

from rlhf.evaluate.reward.accuracy import ScoredRanking, outcome

Floats = npt.NDArray[np.float64]
NUM_BINS = 10
MIN_FOR_KENDALL = 3


def calibration(differences: Sequence[float]) -> dict[str, Any]:
    """Expected calibration error, reliability table and temperature of P(better wins) = sigmoid(difference).

    Args:
        differences: score of the better answer minus the worse, one per untied pair, reward units.

    A pair's confidence is max(p, 1 - p): the model does not know which answer is better. Confidences lie in
    [.5, 1] and go into 10 bins of equal width; the error is the mean over pairs of |accuracy - confidence| of
    the pair's bin (arXiv:1706.04599 eq. 3). NLL in nats per pair.
    """
    values = np.asarray(differences, dtype=float)
    confidence = expit(np.abs(values))
    correct = np.array([outcome(value) for value in values])
    bins = np.minimum((confidence - 0.5) * 2 * NUM_BINS, NUM_BINS - 1).astype(int)
    table = []
    for number in np.unique(bins):
        inside = bins == number
        table.append(
            {
                "low": 0.5 + number / (2 * NUM_BINS),
                "high": 0.5 + (number + 1) / (2 * NUM_BINS),
                "num_pairs": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(correct[inside].mean()),
            }
        )
    error = sum(row["num_pairs"] * abs(row["accuracy"] - row["confidence"]) for row in table) / len(values)
    temperature, after = fitted_temperature(values)
    return {
        "ece": float(error),
        "bins": f"{NUM_BINS} of equal width over confidence .5 to 1",
        "reliability": table,
        "temperature": temperature,
        "nll": negative_log_likelihood(values, 1.0),
        "nll_at_temperature": after,
        "num_pairs": len(values),
    }


def negative_log_likelihood(differences: Floats, inverse_temperature: float) -> float:
    """Mean of -log sigmoid(difference * inverse_temperature), nats per pair."""
    return float(np.logaddexp(0, -inverse_temperature * differences).mean())


def fitted_temperature(differences: Floats) -> tuple[float | None, float]:
    """The T > 0 that minimises the mean of -log sigmoid(difference / T), and that minimum in nats.

    None where no finite T does: for scores that order pairs no better than chance on average T grows without bound
    (log 2 nats), for scores that order every pair correctly it goes to 0 (0 nats).
    """
    if differences.mean() <= 0:
        return None, math.log(2)
    if differences.min() >= 0:
        return None, negative_log_likelihood(np.where(differences > 0, np.inf, 0.0), 1.0)

    def slope(inverse: float) -> float:
        return float(-(differences * expit(-inverse * differences)).mean())

    high = 1.0
    while slope(high) < 0:
        high *= 2
    inverse = brentq(slope, 0.0, high, xtol=1e-12)
    return 1 / inverse, negative_log_likelihood(differences, inverse)


def length_correlation(rows: Sequence[ScoredRanking], lengths: Sequence[Sequence[int]]) -> dict[str, float | None]:
    """Pearson and Spearman correlation of score with answer tokens, over all answers; None where one is constant."""
    scores = [score for row in rows for score in row.scores]
    tokens = [number for each in lengths for number in each]
    if len(set(scores)) < 2 or len(set(tokens)) < 2:
        return {"pearson": None, "spearman": None}
    return {
        "pearson": float(pearsonr(scores, tokens).statistic),
        "spearman": float(spearmanr(scores, tokens).statistic),
    }


def mean_kendall(rows: Sequence[ScoredRanking]) -> dict[str, float | int | None]:
    """Mean Kendall tau-b of scores with the given order, over rankings of 3 answers or more.

    Equal scores throughout count as 0; the mean is None where there is no such ranking.
    """
    found = []
    for row in rows:
        if len(row.ranks) >= MIN_FOR_KENDALL:
            constant = len(set(row.scores)) == 1
            found.append(0.0 if constant else float(kendalltau(row.scores, [-rank for rank in row.ranks]).statistic))
    return {"tau_b": float(np.mean(found)) if found else None, "num_rankings": len(found)}
