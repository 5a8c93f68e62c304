"""Which prompts repeat an earlier one: by cosine of character n-grams, by the 2023 rule, MinHash or an encoder.

Each search takes prompts in file order and returns, for every prompt to drop, the earlier one that it repeats.
All but `vaiv_repeats` compare a prompt with the *kept* ones before it, so of a chain of small changes the first
stays, and so does the next one that has drifted below the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf.curate.near_duplicates import MAX_ROWS, Pairs, character_vectors, similar_pairs, word_vectors
from rlhf.curate.output import progress
from rlhf.curate.row_texts import normalised
from rlhf.errors import DataError, require_packages

NUM_PERMUTATIONS = 128
_DENSE_ROWS = 512  # a block of 512 x 200,000 float32 cosines is 0.4 GB


class Repeat(NamedTuple):
    """The number of the earlier prompt, and the similarity to it."""

    earlier: int
    similarity: float


Repeats = dict[int, Repeat]


def cosine_repeats(prompts: Sequence[str], threshold: float) -> Repeats:
    """Prompts whose TF-IDF of character 2-3-grams has a cosine >= `threshold` with an earlier kept one.

    Equal texts are repeats, however short. Raises DataError for more than MAX_ROWS prompts.
    """
    _check_size(len(prompts), "--dedup cosine")
    texts = [normalised(prompt) for prompt in prompts]
    firsts, repeats = _equal(texts)
    vectors = character_vectors(texts)[firsts]
    near = _renumbered(of_kept(similar_pairs(vectors, threshold)), firsts)
    # The equals of a text that was dropped repeat what that text repeats.
    return near | {number: near.get(repeat.earlier, repeat) for number, repeat in repeats.items()}


def vaiv_repeats(prompts: Sequence[str], threshold: float) -> Repeats:
    """The filter of 2023: word TF-IDF, cosine >= `threshold` with any earlier prompt, kept or not.

    Words are scikit-learn's (two letters or more); a prompt without a word repeats nothing.
    """
    _check_size(len(prompts), "--dedup cosine")
    vectors = word_vectors(prompts)
    empty = np.diff(vectors.indptr) == 0
    firsts, equal = _equal(prompts)
    repeats = {number: repeat for number, repeat in equal.items() if not empty[number]}
    return repeats | _renumbered(of_any(similar_pairs(vectors[firsts], threshold)), firsts)


def minhash_repeats(prompts: Sequence[str], threshold: float) -> Repeats:
    """Prompts whose set of character 3-grams has a Jaccard index >= `threshold` with an earlier kept one.

    MinHash proposes the candidates, so repeats near the threshold can be missed; each candidate is then compared
    exactly. For more prompts than an exact search can take. Raises ConfigError when datasketch is not installed.
    """
    require_packages("datasketch", extra="data", needed_by="--dedup minhash")
    from datasketch import MinHash, MinHashLSH

    # Candidates are verified, so the bands are chosen to miss few; above 0.9 there would be too few bands.
    index: Any = MinHashLSH(threshold=min(threshold, 0.9), num_perm=NUM_PERMUTATIONS, weights=(0.1, 0.9))
    shingles = [frozenset[str]()] * len(prompts)
    repeats: Repeats = {}
    empty = MinHash(num_perm=NUM_PERMUTATIONS)
    for number, prompt in progress(enumerate(prompts), "comparing", len(prompts)):
        shingles[number] = _shingles(normalised(prompt).lower())
        sketch = empty.copy()
        sketch.update_batch([gram.encode() for gram in shingles[number]])
        near = [(_jaccard(shingles[number], shingles[other]), -other) for other in index.query(sketch)]
        similarity, other = max(near, default=(0.0, 0))
        if similarity >= threshold:
            repeats[number] = Repeat(-other, similarity)
            shingles[number] = frozenset()
        else:
            index.insert(number, sketch, check_duplication=False)
    return repeats


def semantic_repeats(vectors: NDArray[np.float32], threshold: float) -> Repeats:
    """Rows of [N, width], centred and of norm 1, with a cosine >= `threshold` to an earlier kept one."""
    _check_size(len(vectors), "--semantic")
    return of_kept(_dense_pairs(vectors, threshold))


def of_kept(blocks: Iterable[Pairs]) -> Repeats:
    """Rows that reach the threshold with an earlier row that is not a repeat itself; the most similar is named."""
    repeats: Repeats = {}
    for row, near in _earlier_rows(blocks):
        if kept := [each for each in near if -each[1] not in repeats]:
            repeats[row] = _most_similar(kept)
    return repeats


def of_any(blocks: Iterable[Pairs]) -> Repeats:
    """Rows that reach the threshold with any earlier row; the most similar is named."""
    return {row: _most_similar(near) for row, near in _earlier_rows(blocks)}


def _earlier_rows(blocks: Iterable[Pairs]) -> Iterator[tuple[int, list[tuple[float, int]]]]:
    """Each row with (cosine, negative number) of the earlier rows near it, so that the maximum is the first best."""
    for pairs in blocks:
        triples = zip(pairs.rows.tolist(), pairs.cosines.tolist(), (-pairs.columns).tolist(), strict=True)
        for row, group in groupby(triples, key=itemgetter(0)):
            yield row, [(cosine, other) for _, cosine, other in group]


def _most_similar(near: Sequence[tuple[float, int]]) -> Repeat:
    similarity, other = max(near)
    return Repeat(-other, similarity)


def _dense_pairs(vectors: NDArray[np.float32], threshold: float) -> Iterator[Pairs]:
    for start in range(0, len(vectors), _DENSE_ROWS):
        block = vectors[start : start + _DENSE_ROWS]
        cosines = block @ vectors[: start + len(block)].T
        rows, columns = np.nonzero(cosines >= threshold)
        earlier = columns < rows + start
        rows, columns = rows[earlier], columns[earlier]
        yield Pairs(rows + start, columns, cosines[rows, columns].astype(np.float64))


def _equal(texts: Sequence[str]) -> tuple[list[int], Repeats]:
    """The numbers of the first occurrences, and the other texts as their repeats."""
    first: dict[str, int] = {}
    repeats: Repeats = {}
    for number, text in enumerate(texts):
        if text in first:
            repeats[number] = Repeat(first[text], 1.0)
        else:
            first[text] = number
    return list(first.values()), repeats


def _renumbered(repeats: Repeats, numbers: Sequence[int]) -> Repeats:
    return {numbers[row]: Repeat(numbers[earlier], similarity) for row, (earlier, similarity) in repeats.items()}


def _check_size(num_prompts: int, where: str) -> None:
    if num_prompts > MAX_ROWS:
        raise DataError(
            f"{num_prompts:,} prompts are too many for an exact comparison",
            where=where,
            expected=f"at most {MAX_ROWS:,}",
            fix="--dedup minhash:0.7",
        )


SEARCHES: dict[str, Callable[[Sequence[str], float], Repeats]] = {
    "cosine": cosine_repeats,
    "vaiv": vaiv_repeats,
    "minhash": minhash_repeats,
}


def _shingles(text: str) -> frozenset[str]:
    return frozenset(text[start : start + 3] for start in range(max(len(text) - 2, 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
