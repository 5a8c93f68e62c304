"""Control group: the policy against the model it started from, and against best-of-n sampling from that model.

Arithmetic on scores [prompts, answers] in reward units. All three arms answer the same prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from rlhf.evaluate.intervals import Figure, Floats, mean_figure
from rlhf.html.intervals import figure_text
from rlhf.html.texts import Texts
from rlhf.html.words import Words, joined, same

text = Texts("rlhf.evaluate")
MIN_PROMPTS = 10  # with fewer, a bootstrap interval is far too narrow
SMALL = 1e-3  # below it three decimals show a difference as none
Z_POWER = norm.ppf(0.8)  # 80 % power


def best_of_n(scores: Floats, n: int) -> Floats:
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
    """KL(best-of-n || the model sampled) in nats: log n - (n - 1) / n, an upper bound where answers can be equal.

    Source: arXiv:2009.01325 appendix G.3; arXiv:2401.01879 on the bound.
    """
    return math.log(n) - (n - 1) / n


def prompts_needed(differences: Floats, confidence: float = 0.95) -> int | None:
    """Prompts at which the two-sided interval of the observed mean difference would exclude 0 in 80 % of repetitions.

    None where the mean is 0. Normal approximation: ((z + z') sd / mean)^2.
    """
    mean = float(differences.mean())
    if mean == 0 or len(differences) < 2:
        return None
    quantiles = norm.ppf((1 + confidence) / 2) + Z_POWER
    return math.ceil((quantiles * float(differences.std(ddof=1)) / mean) ** 2)


def control_card(
    reference: Floats, policy: Floats, policy_kl: Sequence[float], *, best_of: Sequence[int], decoding: dict[str, Any]
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
    difference = mean_figure(after - before)
    needed = prompts_needed(after - before)
    card: dict[str, Any] = {
        "num_prompts": num_prompts,
        "samples": num_samples,
        "pool": reference.shape[1],
        "reference": {**mean_figure(before), "kl": 0.0},
        "policy": {**mean_figure(after), "kl": float(np.mean(policy_kl))},
        "policy_minus_reference": {**difference, "prompts_for_80_percent_power": needed},
        "best_of_n": [{"n": n, **mean_figure(best_of_n(reference, n)), "kl": best_of_n_kl(n)} for n in best_of],
        "decoding": decoding,
    }
    return {**card, "outcome": outcome(difference, num_prompts), "verdict": verdict(card).en}


def outcome(figure: Figure, num_prompts: int, *, even: float = 0.0) -> str:
    """better, worse or unknown, by the side of `even` on which the interval lies; unknown below MIN_PROMPTS."""
    if num_prompts < MIN_PROMPTS:
        return "unknown"
    return "better" if figure["low"] > even else "worse" if figure["high"] < even else "unknown"


def verdict(card: Mapping[str, Any]) -> Words:
    """The comparison in plain sentences: better, worse or how many prompts would tell, then the KL and best-of-n."""
    gap, policy, arms = card["policy_minus_reference"], card["policy"], card["best_of_n"]
    found, needed = outcome(gap, card["num_prompts"]), gap["prompts_for_80_percent_power"]
    more = sampling = same("")
    if found == "unknown" and needed is not None:
        more = text("control.needed", prompts=max(MIN_PROMPTS, needed))
    if arms:
        below = [arm for arm in arms if arm["mean"] <= policy["mean"]]
        above = [arm for arm in arms if arm["mean"] > policy["mean"]]
        listed = Words(
            ", ".join(f"best-of-{arm['n']} {arm['mean']:.3f}({arm['kl']:.2f} nats)" for arm in arms),
            " and ".join(f"best-of-{arm['n']} {arm['mean']:.3f} at {arm['kl']:.2f}" for arm in below[-1:] + above[:1]),
        )
        sampling = text("control.sampling", arms=listed)
    figures = figure_text(gap, "+.1e" if 0 < max(abs(gap["low"]), abs(gap["high"])) < SMALL else "+.3f")
    first = text(f"control.{found}", figures=figures, prompts=card["num_prompts"], more=more)
    return joined([first, text("control.policy", kl=policy["kl"], mean=policy["mean"], sampling=sampling)])
