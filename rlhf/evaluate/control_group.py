"""Is the policy better than the model it started from, and better than spending the same KL on best-of-n sampling?

Everything here is arithmetic on scores: [prompts, answers], reward units. All three arms answer the same prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rlhf.evaluate.reward.accuracy import share_interval

Scores = npt.NDArray[np.float64]
MIN_PROMPTS = 10  # a bootstrap over fewer is far too sure of itself
Z_CONFIDENCE, Z_POWER = 1.959964, 0.841621  # two-sided 95 %, 80 % power


def best_of_n(scores: Scores, n: int) -> Scores:
    """Expected highest score of `n` answers drawn without replacement from each prompt's pool, [prompts].

    Exact, by order statistics: the i-th smallest of m is the highest of C(i - 1, n - 1) of the C(m, n) subsets.

    Raises: ValueError when a pool holds fewer than n.
    """
    size = scores.shape[1]
    if not 1 <= n <= size:
        raise ValueError(f"n = {n}, expected 1 to {size}, the answers of a prompt")
    weights = [math.comb(rank, n - 1) / math.comb(size, n) for rank in range(size)]
    return np.sort(scores, axis=1) @ np.asarray(weights)


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n || the model sampled) in nats: log n - (n - 1) / n, an upper bound where answers can be alike.

    Source: arXiv:2009.01325 appendix G.3; arXiv:2401.01879 on the bound.
    """
    return math.log(n) - (n - 1) / n


def mean_with_interval(values: Scores) -> dict[str, float]:
    """Mean over prompts with its 95 % bootstrap interval."""
    low, high = share_interval(values.tolist(), [1] * len(values))
    return {"mean": float(values.mean()), "low": low, "high": high}


def prompts_needed(differences: Scores) -> int | None:
    """Prompts at which the observed mean difference would be told from 0 in 80 % of repetitions.

    None where the mean is 0, which no number tells apart. Normal approximation: ((z + z') sd / mean)^2.
    """
    mean = float(differences.mean())
    if mean == 0 or len(differences) < 2:
        return None
    return math.ceil(((Z_CONFIDENCE + Z_POWER) * float(differences.std(ddof=1)) / mean) ** 2)


def control_card(
    reference: Scores, policy: Scores, policy_kl: Sequence[float], *, best_of: Sequence[int], decoding: dict[str, Any]
) -> dict[str, Any]:
    """The comparison, as control.json holds it.

    Args:
        reference: scores of the reference's pool [P, M]; its first S columns were drawn from the policy's streams.
        policy: scores of the policy's answers [P, S].
        policy_kl: log p(policy) - log p(reference) of each policy answer, nats.
        best_of: n of best-of-n, at most M.
        decoding: sampling settings of both.
    """
    num_prompts, num_samples = policy.shape
    before, after = reference[:, :num_samples].mean(1), policy.mean(1)
    difference = mean_with_interval(after - before)
    needed = prompts_needed(after - before)
    card: dict[str, Any] = {
        "num_prompts": num_prompts,
        "samples": num_samples,
        "pool": reference.shape[1],
        "reference": {**mean_with_interval(before), "kl": 0.0},
        "policy": {**mean_with_interval(after), "kl": float(np.mean(policy_kl))},
        "policy_minus_reference": {**difference, "prompts_for_80_percent_power": needed},
        "best_of_n": [{"n": n, **mean_with_interval(best_of_n(reference, n)), "kl": best_of_n_kl(n)} for n in best_of],
        "decoding": decoding,
    }
    return {**card, "outcome": outcome(difference, num_prompts), "verdict": verdict(card)}


def outcome(difference: dict[str, float], num_prompts: int) -> str:
    """better, worse or unknown, by where 0 lies to the interval; unknown below MIN_PROMPTS."""
    if num_prompts < MIN_PROMPTS:
        return "unknown"
    return "better" if difference["low"] > 0 else "worse" if difference["high"] < 0 else "unknown"


def verdict(card: dict[str, Any]) -> str:
    """What the comparison says, in plain sentences."""
    found = card["policy_minus_reference"]
    figures = f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] on {card['num_prompts']} prompts"
    match outcome(found, card["num_prompts"]):
        case "unknown":
            needed = max(MIN_PROMPTS, found["prompts_for_80_percent_power"] or 0)
            tells = found["prompts_for_80_percent_power"] is not None
            more = f"; about {needed:,} prompts would tell a difference of this size" if tells else ""
            first = f"The policy cannot be told from the model it started from: {figures}{more}."
        case word:
            first = f"The policy scores {word} than the model it started from: {figures}."
    return f"{first} {_beside_best_of_n(card)}"


def _beside_best_of_n(card: dict[str, Any]) -> str:
    """Where the policy stands among best-of-n sampling of that model, and at what KL each."""
    policy, arms = card["policy"], card["best_of_n"]
    around = [arm for arm in arms if arm["mean"] <= policy["mean"]][-1:]
    around += [arm for arm in arms if arm["mean"] > policy["mean"]][:1]
    others = " and ".join(f"best-of-{arm['n']} {arm['mean']:.3f} at {arm['kl']:.2f}" for arm in around)
    return f"It scores {policy['mean']:.3f} at {policy['kl']:.2f} nats of KL; sampling of that model, {others}."
