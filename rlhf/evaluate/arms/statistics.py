"""All pairs of several arms: paired bootstrap differences, with Holm's correction for the number of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rlhf.evaluate.control_group import MIN_PROMPTS, prompts_needed
from rlhf.evaluate.intervals import Floats

Pair = tuple[str, str]  # the arm that is compared with, the arm that is compared
DRAWS = 10_000  # at least: Holm's first step asks for tails far below those of one comparison,
DRAWS_PER_COMPARISON = 400  # so that several draws decide, not one
DRAWN_AT_ONCE = 500
ERROR = 0.05  # chance that any one of all comparisons is called a difference where there is none


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """One arm minus another, prompt by prompt.

    Attributes:
        pair: the arm that is subtracted, and the arm it is subtracted from.
        mean: of the differences, in the unit of the figures.
        low, high: ends of the two-sided interval at `confidence`, which is 1 minus the error that Holm's procedure
            allows this comparison, so that it excludes 0 where the two arms differ.
        p: two-sided, by bootstrap, not corrected; `corrected`: Holm's.
        num_prompts: prompts with a figure of both arms.
        needed: prompts that would tell the two apart at this confidence in 80 % of repetitions; None where the mean
            is 0.
    """

    pair: Pair
    mean: float
    low: float
    high: float
    confidence: float
    p: float
    corrected: float
    num_prompts: int
    needed: int | None

    @property
    def tells(self) -> bool:
        """Whether the two arms differ, after correction; never with fewer than MIN_PROMPTS prompts."""
        return self.corrected <= ERROR and self.num_prompts >= MIN_PROMPTS

    def seen_from(self, arm: str) -> ArmComparison:
        """The same comparison as that arm minus the other."""
        first, second = self.pair
        if arm == second:
            return self
        assert arm == first, f"{arm} is not in {self.pair}"
        return ArmComparison(
            (second, first), -self.mean, -self.high, -self.low, self.confidence, self.p, self.corrected,
            self.num_prompts, self.needed,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """As arms.json holds it."""
        return {
            "of": self.pair[1],
            "minus": self.pair[0],
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
            "p": self.p,
            "p_corrected": self.corrected,
            "differ": self.tells,
            "num_prompts": self.num_prompts,
            "prompts_for_80_percent_power": self.needed,
        }


def all_pairs(figures: Mapping[str, Floats]) -> list[ArmComparison]:
    """Every pair of arms by their figures per prompt, [P] each of the same prompts."""
    return compared({(first, second): figures[second] - figures[first] for first, second in combinations(figures, 2)})


def compared(differences: Mapping[Pair, Floats]) -> list[ArmComparison]:
    """The comparisons of differences per prompt, corrected together, in the order given.

    Source: Holm (1979): in the order of their p, the k-th of m comparisons (from 0) is held to an error of
    ERROR / (m - k). None is called a difference after the first that is not, and all behind it are held to its error.
    """
    draws = max(DRAWS, DRAWS_PER_COMPARISON * len(differences))
    found = _bootstrapped(differences, draws)
    p_values = {pair: two_sided_p(means) for pair, means in found.items()}
    corrected = holm(list(p_values.values()))
    order = {pair: step for step, pair in enumerate(sorted(p_values, key=lambda pair: p_values[pair]))}
    last = sum(adjusted <= ERROR for adjusted in corrected)  # the step at which the procedure ends
    comparisons = []
    for (pair, each), adjusted in zip(differences.items(), corrected, strict=True):
        error = ERROR / (len(differences) - min(order[pair], last))
        low, high = np.quantile(found[pair], [error / 2, 1 - error / 2])
        needed = prompts_needed(each, 1 - error)
        mean = float(each.mean())
        comparisons.append(
            ArmComparison(pair, mean, float(low), float(high), 1 - error, p_values[pair], adjusted, len(each), needed)
        )
    return comparisons


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p in the order given: of the k-th smallest of m (from 0), (m - k) p, never below that of a smaller
    one, at most 1."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[place]))
        corrected[place] = highest
    return corrected


def two_sided_p(means: Floats) -> float:
    """Twice the share of bootstrap means [D] on the rarer side of 0, one draw added on each side so that none is 0."""
    zero = 1e-12 * float(np.abs(means).max(initial=0.0))  # sums that cancel leave a rounding error
    rarer = min(int((means <= zero).sum()), int((means >= -zero).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(means) + 1))


def _bootstrapped(differences: Mapping[Pair, Floats], draws: int) -> dict[Pair, Floats]:
    """Means over prompts drawn with replacement, [draws]; the same draws for every pair of as many prompts."""
    found: dict[Pair, Floats] = {}
    for number in sorted({len(each) for each in differences.values()}):
        pairs = [pair for pair, each in differences.items() if len(each) == number]
        figures = np.stack([differences[pair] for pair in pairs], axis=1)
        generator = np.random.default_rng(0)
        shares = np.full(number, 1 / number)
        counts = (generator.multinomial(number, shares, size=DRAWN_AT_ONCE) for _ in range(-(-draws // DRAWN_AT_ONCE)))
        means = np.concatenate([each @ figures for each in counts]) / number
        found |= dict(zip(pairs, means.T, strict=True))
    return found
