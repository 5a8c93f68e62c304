"""The adaptive KL controller."""

from __future__ import annotations

MAX_ERROR = 0.2


def adapted_kl_coefficient(coefficient: float, kl: float, *, target: float, num_samples: int, horizon: int) -> float:
    """Weight of the KL penalty after an iteration: raised when the KL was above its target, lowered when below.

    coefficient * (1 + e * num_samples / horizon) with e = kl / target - 1, clipped to [-0.2, 0.2].

    Units:   coefficient in reward units per nat; kl and target in nats per sequence; num_samples (of this iteration)
             and horizon in samples.
    Raises:  ValueError if target or horizon is not positive.
    Source:  arXiv:1909.08593 section 2.2.
    """
    if not (target > 0 and horizon > 0):
        raise ValueError(f"target = {target}, horizon = {horizon}: expected both > 0")
    error = max(-MAX_ERROR, min(MAX_ERROR, kl / target - 1))
    return coefficient * (1 + error * num_samples / horizon)
