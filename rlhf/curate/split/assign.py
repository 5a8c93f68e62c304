"""Which prompts are for training, development and test: by cluster of near-duplicates, the same for every stage.

Prompts that are near-duplicates, through whatever chain of others, form a cluster, and a cluster is never divided.
Its split is decided by a hash of its smallest member and the seed. Prompts that were assigned before keep their
split, and a cluster that touches one of them follows it: test before dev before train.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from rlhf.curate.near_duplicates import MAX_ROWS, character_vectors, clusters
from rlhf.errors import DataError

SPLITS = ("train", "dev", "test")
_FIRST = ("test", "dev", "train")  # whom a cluster follows when it touches several
Shares = Mapping[str, float]


class RowPrompt(NamedTuple):
    """What decides where a row goes, normalised: the last user turn, and the whole conversation before the answer."""

    asked: str
    conversation: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where prompts go.

    Attributes:
        splits: of every prompt given, by what it asks, and of those assigned before.
        num_clusters: of the prompts given and those assigned before.
        largest: prompts in the largest cluster.
        conflicts: one line for each cluster of new prompts and of earlier ones in different splits.
    """

    splits: dict[str, str]
    num_clusters: int
    largest: int
    conflicts: list[str]


def check_shares(shares: Shares) -> None:
    """Raises DataError unless the shares are of known splits, not negative, and sum to 1."""
    if unknown := [name for name in shares if name not in SPLITS]:
        problem = f"no split is called {unknown[0]!r}"
        raise DataError(
            problem, where="--shares", expected="train, dev, test", fix="--shares train=0.9,dev=0.05,test=0.05"
        )
    bad = not all(math.isfinite(share) and share >= 0 for share in shares.values())
    if bad or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        given = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise DataError(f"{given} sum to {sum(shares.values()):g}", where="--shares", expected="shares that sum to 1")


def assign(
    prompts: Sequence[RowPrompt], earlier: Mapping[str, str], *, shares: Shares, seed: int, threshold: float
) -> Assignment:
    """Assigns the prompts of all rows.

    Args:
        prompts: of the rows of all files that are split together.
        earlier: split of each text assigned before.
        shares: expected share of each split.
        threshold: cosine of character 2-3-grams that makes near-duplicates; 1 takes equal texts only.

    Raises: DataError for bad shares, or too many prompts to compare.
    """
    check_shares(shares)
    groups = _grouped(prompts, earlier, threshold)
    splits = dict(earlier)
    conflicts = []
    for members in groups:
        before = Counter(earlier[text] for text in members if text in earlier)
        new = [text for text in members if text not in earlier]
        if len(before) > 1 and new:
            conflicts.append(_conflict(new, before))
        chosen = next((name for name in _FIRST if name in before), "") or _drawn(min(members), shares, seed)
        splits.update(dict.fromkeys(new, chosen))
    # A conversation goes where its last question does: that may have been decided before.
    splits.update((each.conversation, splits[each.asked]) for each in prompts if each.conversation not in earlier)
    return Assignment(splits, len(groups), max(map(len, groups), default=0), conflicts)


def _grouped(prompts: Sequence[RowPrompt], earlier: Mapping[str, str], threshold: float) -> list[list[str]]:
    """The distinct texts by cluster; a row's two texts are in one cluster."""
    numbers: dict[str, int] = {}
    for text in (*earlier, *(text for each in prompts for text in each)):
        numbers.setdefault(text, len(numbers))
    links = [(numbers[each.asked], numbers[each.conversation]) for each in prompts if each.asked != each.conversation]
    texts = list(numbers)
    if threshold < 1 and len(texts) > MAX_ROWS:
        raise DataError(
            f"{len(texts):,} distinct prompts are too many to compare all",
            where="--threshold",
            expected=f"at most {MAX_ROWS:,}",
            fix="--threshold 1 (equal prompts only), after rlhf data filter --dedup minhash",
        )
    vectors = character_vectors(texts if threshold < 1 else [""] * len(texts))
    groups: dict[int, list[str]] = {}
    for text, label in zip(texts, clusters(vectors, threshold, links).tolist(), strict=True):
        groups.setdefault(label, []).append(text)
    return list(groups.values())


def _conflict(new: Sequence[str], before: Counter[str]) -> str:
    counts = ", ".join(f"{before[name]} in {name}" for name in _FIRST if name in before)
    return f"{len(new)} new, {counts}: {new[0][:80]}"


def _drawn(text: str, shares: Shares, seed: int) -> str:
    """The split of a cluster by its smallest member: a number in [0, 1) that depends on text and seed alone."""
    digest = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    names = [name for name in SPLITS if shares.get(name, 0.0) > 0]
    ends = [sum(shares[name] for name in names[: index + 1]) for index in range(len(names))]
    inside = (name for name, (start, end) in zip(names, pairwise((0.0, *ends)), strict=True) if start <= point < end)
    return next(inside, names[-1])
