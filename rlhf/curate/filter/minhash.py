"""Near-duplicates among millions of texts, by MinHash and an exact comparison of what it proposes.

A text is the set of its character 3-grams. Two sets agree in one of `NUM_PERMUTATIONS` minima with a probability that
is their Jaccard index (Broder 1997). The minima are cut into bands; texts that agree in a whole band are compared
exactly. Of each band only a 32-bit hash is kept, which gives way to the number of the previous text with that hash:
memory grows by 4 bytes per band and text, whatever the length of the texts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf.curate.output import progress

NUM_PERMUTATIONS = 128
MOST_BANDED = 0.9  # above it there would be too few bands; candidates are compared exactly in any case
MISSED = 0.9  # weight of missing a pair above the threshold, against comparing one below it
_BATCH = 100_000  # characters whose 3-grams are hashed at once, of about 50 bytes each
_SETS = 2000  # sets of 3-grams kept for the next comparison,
_KEPT = 300_000  # and how many 3-grams they hold in all, of about 130 bytes each
_MIX = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)  # of splitmix64
_FOLD = np.uint64(0x9E3779B97F4A7C15)
Keys = NDArray[np.uint32]


class Nearest(NamedTuple):
    """The number of an earlier text, and the Jaccard index with it."""

    earlier: int
    similarity: float


def nearest_kept(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, Nearest]]:
    """Each text whose Jaccard index with an earlier kept one is at least `threshold`, with the nearest such text.

    A text is kept unless it is yielded. Pairs near the threshold can be missed. `texts` is read more than once, one
    text at a time, and may lie on the disk.
    """
    links = _links(band_keys(texts, *bands(threshold)))
    chains = [memoryview(each) for each in links]
    compared = np.flatnonzero((links >= 0).any(axis=0)).tolist()
    similarity, dropped = _exact_similarity(texts), bytearray(len(texts))
    for number in progress(compared, "comparing", len(compared)):
        candidates = {other for chain in chains for other in _kept_before(number, chain, dropped)}
        near, other = max(((similarity(number, other), -other) for other in candidates), default=(0.0, 0))
        if near >= threshold:
            dropped[number] = True
            yield number, Nearest(-other, near)


def _kept_before(number: int, chain: memoryview, dropped: bytearray) -> Iterator[int]:
    """The kept texts that share the band, the latest first; what was dropped is taken out of the chain."""
    here = number
    while (before := chain[here]) >= 0:
        while before >= 0 and dropped[before]:
            before = chain[before]
        chain[here] = before
        if before < 0:
            return
        yield before
        here = before


def grams(text: str) -> frozenset[str]:
    """The character 3-grams; a shorter text is one of its own."""
    return frozenset(text[start : start + 3] for start in range(max(len(text) - 2, 1)))


def _exact_similarity(texts: Sequence[str]) -> Callable[[int, int], float]:
    """The Jaccard index of two texts by their numbers; the 3-grams of the texts used last are kept."""
    kept: OrderedDict[int, frozenset[str]] = OrderedDict()
    size = 0

    def of(number: int) -> frozenset[str]:
        nonlocal size
        if number in kept:
            kept.move_to_end(number)
            return kept[number]
        found = kept[number] = grams(texts[number])
        size += len(found)
        while (size > _KEPT or len(kept) > _SETS) and len(kept) > 1:
            size -= len(kept.popitem(last=False)[1])
        return found

    def similarity(one: int, other: int) -> float:
        ours, theirs = of(one), of(other)
        both = len(ours & theirs)
        return both / (len(ours) + len(theirs) - both)

    return similarity


def bands(threshold: float) -> tuple[int, int]:
    """(bands, minima per band) that least often propose pairs below `threshold` and miss pairs above it.

    Two sets of Jaccard index s agree in one of b bands of r minima with probability 1 - (1 - s^r)^b
    (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4); both errors are integrated over s.
    """
    limit = min(threshold, MOST_BANDED)
    index = (np.arange(1000) + 0.5) / 1000
    below = index < limit

    def error(shape: tuple[int, int]) -> float:
        count, width = shape
        proposed = 1 - (1 - index**width) ** count
        return float((1 - MISSED) * proposed[below].sum() + MISSED * (1 - proposed[~below]).sum())

    counts = range(1, NUM_PERMUTATIONS + 1)
    return min(((b, r) for b in counts for r in range(1, NUM_PERMUTATIONS // b + 1)), key=error)


def band_keys(texts: Sequence[str], num_bands: int, width: int) -> Keys:
    """[num_bands, N] hash of the `width` minima of every band of every text."""
    keys = np.empty((num_bands, len(texts)), dtype=np.uint32)
    factors = np.random.default_rng(17).integers(0, 2**63, size=(2, num_bands, width), dtype=np.uint64) * 2 + 1
    start = 0
    for some in _batches(progress(texts, "hashing", len(texts))):
        hashes, starts = _gram_hashes(some)
        permuted = np.empty_like(hashes)
        for band in range(num_bands):
            key = np.zeros(len(some), dtype=np.uint64)
            for place in range(width):
                np.multiply(hashes, factors[0, band, place], out=permuted)
                np.add(permuted, factors[1, band, place], out=permuted)
                key = (key ^ np.minimum.reduceat(permuted, starts)) * _FOLD
            keys[band, start : start + len(some)] = key >> np.uint64(32)
        start += len(some)
    return keys


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in order, in lists of about _BATCH characters; a longer text is one of its own."""
    some, size = list[str](), 0
    for text in texts:
        if some and size + len(text) > _BATCH:
            yield some
            some, size = [], 0
        some.append(text)
        size += len(text)
    if some:
        yield some


def _gram_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A 64-bit hash of every 3-gram of the texts, and where those of each text start; distinct 3-grams differ."""
    padded = [text if len(text) > 2 else text.ljust(3, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    three = codes[:-2] | codes[1:-1] << np.uint64(21) | codes[2:] << np.uint64(42)
    lengths = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    ends = np.cumsum(lengths)
    inside = np.ones(len(codes), dtype=bool)
    inside[ends - 1] = inside[ends - 2] = False  # 3-grams across two texts
    starts = np.concatenate(([0], np.cumsum(lengths - 2)[:-1]))
    return _mixed(three[inside[:-2]]), starts


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64, one to one."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def _links(keys: Keys) -> NDArray[np.int32]:
    """[bands, N] the previous text with the same key in the band, or -1. Takes the memory of `keys`."""
    links = keys.view(np.int32)
    for band, values in enumerate(keys):
        order = np.argsort(values, kind="stable")
        same = values[order[1:]] == values[order[:-1]]
        links[band] = -1
        links[band, order[1:][same]] = order[:-1][same]
    return links
