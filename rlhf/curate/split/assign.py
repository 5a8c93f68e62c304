"""Assigns prompts to training, development and test: by cluster of near-duplicates, alike for every stage.

Near-duplicates, linked directly or through others, form a cluster, and a cluster is never divided. Its split is
decided by a hash of its smallest member and the seed. Prompts that were assigned before keep their split, and a
cluster that contains one of them follows it: test before dev before train.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from rlhf.errors import DataError

SPLITS = ("train", "dev", "test")
_PRECEDENCE = ("test", "dev", "train")  # of the earlier splits in one cluster, the one it follows
Shares = Mapping[str, float]


class RowPrompt(NamedTuple):
    """The texts that decide the split of a row, normalised: the last user turn, and all turns before the answer."""

    asked: str
    conversation: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """The split of every prompt.

    Attributes:
        splits: by text, for the given prompts and for those assigned before.
        num_clusters: clusters of the given prompts and those assigned before.
        largest: prompts in the largest cluster.
        conflicts: one line for each cluster that joins new prompts to earlier ones of different splits.
    """

    splits: dict[str, str]
    num_clusters: int
    largest: int
    conflicts: list[str]


def check_shares(shares: Shares) -> None:
    """Raises DataError unless the shares are of known splits, not negative, and sum to 1."""
    if unknown := [name for name in shares if name not in SPLITS]:
        fix = "--shares train=0.9,dev=0.05,test=0.05"
        raise DataError(f"no split is called {unknown[0]!r}", where="--shares", expected=", ".join(SPLITS), fix=fix)
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
        threshold: cosine of character 2-3-grams from which texts are near-duplicates; 1 takes equal texts only.

    Raises: DataError for bad shares, or too many prompts to compare.
    """
    check_shares(shares)
    groups = _clustered(prompts, earlier, threshold)
    splits = dict(earlier)
    conflicts = []
    for members in groups:
        before = Counter(earlier[text] for text in members if text in earlier)
        new = [text for text in members if text not in earlier]
        followed = [name for name in _PRECEDENCE if name in before]
        if len(before) > 1 and new:
            counts = ", ".join(f"{before[name]} in {name}" for name in followed)
            conflicts.append(f"{len(new)} new, {counts}: {new[0][:80]}")
        chosen = followed[0] if followed else _drawn(min(members), shares, seed)
        splits.update(dict.fromkeys(new, chosen))
    # A conversation follows its last question, whose split may have been decided before.
    splits.update((each.conversation, splits[each.asked]) for each in prompts if each.conversation not in earlier)
    return Assignment(splits, len(groups), max(map(len, groups), default=0), conflicts)


def _clustered(prompts: Sequence[RowPrompt], earlier: Mapping[str, str], threshold: float) -> list[list[str]]:
    """The distinct texts by cluster; the two texts of a row are in one cluster."""
    from rlhf.curate.near_duplicates import MAX_ROWS, character_vectors, clusters

    texts = list(dict.fromkeys((*earlier, *(text for each in prompts for text in each))))
    numbers = {text: number for number, text in enumerate(texts)}
    links = [(numbers[each.asked], numbers[each.conversation]) for each in prompts if each.asked != each.conversation]
    if threshold < 1 and len(texts) > MAX_ROWS:
        raise DataError(
            f"{len(texts):,} distinct prompts are too many to compare all",
            where="--threshold",
            expected=f"at most {MAX_ROWS:,}",
            fix="--threshold 1 (equal prompts only), after rlhf data filter --dedup minhash",
        )
    vectors = character_vectors(texts if threshold < 1 else [""] * len(texts))
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for text, label in zip(texts, clusters(vectors, threshold, links).tolist(), strict=True):
        groups[label].append(text)
    return list(groups.values())


def _drawn(text: str, shares: Shares, seed: int) -> str:
    """The split of a cluster by its smallest member: a number in [0, 1) that only depends on text and seed."""
    digest = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    names = [name for name in SPLITS if shares.get(name, 0.0) > 0]
    ends = accumulate(shares[name] for name in names)
    return next((name for name, end in zip(names, ends, strict=True) if point < end), names[-1])
