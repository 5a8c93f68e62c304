"""Converts a judge's sums to ranks; ties, and pairs of two poor answers, give no training pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_SHARE = 2 / 3  # of the highest sum: 20 of the 30 points of six criteria
_SAME = 1e-6  # points, for sums of floats


@dataclass(frozen=True, slots=True)
class Ranked:
    """Ranks from 1, equal ones tie; and how many of the K(K-1)/2 pairs are kept, tied or low."""

    ranks: tuple[int, ...]
    kept_pairs: int
    tied_pairs: int
    low_pairs: int

    @property
    def problem(self) -> str:
        """Why the row has no training pair; "" where it has one."""
        if self.kept_pairs:
            return ""
        if not self.tied_pairs:
            return "every pair below the least sum"
        return "every pair ties or is below the least sum" if self.low_pairs else "every pair ties"


def ranked(sums: Sequence[float], *, min_sum: float, min_gap: float = 0.0) -> Ranked:
    """Ranks the answers by their sums (points).

    A pair is dropped when both sums are below `min_sum`: all such answers share the last rank, and each still loses
    to the answers above. Neighbouring sums that differ by at most `min_gap` tie, and so do chains of them.
    """
    order = sorted(range(len(sums)), key=lambda index: -sums[index])
    ranks = [0] * len(sums)
    for place, index in enumerate(order):
        above = order[place - 1] if place else index
        linked = sums[above] - sums[index] <= min_gap + _SAME
        both_low = sums[above] < min_sum - _SAME
        ranks[index] = ranks[above] if place and (linked or both_low) else place + 1
    pairs = [(one, other) for one in range(len(sums)) for other in range(one)]
    low = sum(max(sums[one], sums[other]) < min_sum - _SAME for one, other in pairs)
    kept = sum(ranks[one] != ranks[other] for one, other in pairs)
    return Ranked(tuple(ranks), kept, len(pairs) - kept - low, low)
