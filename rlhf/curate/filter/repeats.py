"""Which prompts repeat an earlier one: by cosine of character n-grams, by the 2023 rule, MinHash or an encoder.

Each search takes prompts in file order and returns, for every prompt to drop, the earlier one that it repeats.
All but `vaiv_repeats` compare a prompt with the *kept* ones before it, so of a chain of small changes the first
stays, and so does the next one that has drifted below the threshold.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf.curate.filter.minhash import nearest_kept
from rlhf.curate.near_duplicates import MAX_ROWS, Pairs, character_vectors, similar_pairs, word_vectors
from rlhf.curate.row_texts import normalised
from rlhf.errors import DataError

SAID_FROM = 20_000  # prompts; below it an exact comparison takes seconds,
SAID_FROM_BYTES = 400_000_000  # and below it little memory
BYTES_PER_CHARACTER = 150  # peak of the TF-IDF of character n-grams; of words a sixth more
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
    require_comparable(len(prompts), "--dedup cosine")
    texts = [normalised(prompt) for prompt in prompts]
    _say_memory(texts)
    firsts, repeats = _equal(texts)
    vectors = character_vectors(texts)[firsts]
    near = _renumbered(of_kept(similar_pairs(vectors, threshold)), firsts)
    # The equals of a text that was dropped repeat what that text repeats.
    return near | {number: near.get(repeat.earlier, repeat) for number, repeat in repeats.items()}


def vaiv_repeats(prompts: Sequence[str], threshold: float) -> Repeats:
    """The filter of 2023: word TF-IDF, cosine >= `threshold` with any earlier prompt, kept or not.

    Words are scikit-learn's (two letters or more); a prompt without a word repeats nothing.
    """
    require_comparable(len(prompts), "--dedup cosine")
    _say_memory(prompts)
    vectors = word_vectors(prompts)
    empty = np.diff(vectors.indptr) == 0
    firsts, equal = _equal(prompts)
    repeats = {number: repeat for number, repeat in equal.items() if not empty[number]}
    return repeats | _renumbered(of_any(similar_pairs(vectors[firsts], threshold)), firsts)


def minhash_repeats(prompts: Sequence[str], threshold: float) -> Repeats:
    """Prompts whose set of character 3-grams has a Jaccard index >= `threshold` with an earlier kept one.

    MinHash proposes the candidates, so repeats near the threshold can be missed; each candidate is then compared
    exactly. For more prompts than an exact search can take.
    """
    found = nearest_kept(_Normalised(prompts), threshold)
    return {number: Repeat(earlier, similarity) for number, (earlier, similarity) in found}


class _Normalised(Sequence[str]):
    """Prompts as they are compared, without a second copy of them."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompts = prompts

    def __len__(self) -> int:
        return len(self._prompts)

    def __iter__(self) -> Iterator[str]:
        return (normalised(prompt).lower() for prompt in self._prompts)

    def __getitem__(self, number: Any) -> Any:
        return normalised(self._prompts[number]).lower()


def semantic_repeats(vectors: NDArray[np.float32], threshold: float) -> Repeats:
    """Rows of [N, width], centred and of norm 1, with a cosine >= `threshold` to an earlier kept one."""
    require_comparable(len(vectors), "--semantic")
    return of_kept(_dense_pairs(vectors, threshold))


def of_kept(blocks: Iterable[Pairs]) -> Repeats:
    """Rows that reach the threshold with an earlier row that is not a repeat itself; the most similar is named."""
    repeats: Repeats = {}
    for row, near in _earlier_rows(blocks):
        if kept := next((each for each in near if each.earlier not in repeats), None):
            repeats[row] = kept
    return repeats


def of_any(blocks: Iterable[Pairs]) -> Repeats:
    """Rows that reach the threshold with any earlier row; the most similar is named."""
    return {row: near[0] for row, near in _earlier_rows(blocks)}


def _earlier_rows(blocks: Iterable[Pairs]) -> Iterator[tuple[int, list[Repeat]]]:
    """Each row with the earlier rows near it, the most similar first, and of equally similar ones the first."""
    for pairs in blocks:
        order = np.lexsort((pairs.columns, -pairs.cosines, pairs.rows))
        triples = zip(*(values[order].tolist() for values in pairs), strict=True)
        for row, group in groupby(triples, key=itemgetter(0)):
            yield row, [Repeat(earlier, cosine) for _, earlier, cosine in group]


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
        if first.setdefault(text, number) != number:
            repeats[number] = Repeat(first[text], 1.0)
    return list(first.values()), repeats


def _renumbered(repeats: Repeats, numbers: Sequence[int]) -> Repeats:
    return {numbers[row]: Repeat(numbers[earlier], similarity) for row, (earlier, similarity) in repeats.items()}


def require_comparable(num_prompts: int, where: str) -> None:
    """Raises DataError for more prompts than an exact comparison takes."""
    if num_prompts > MAX_ROWS:
        raise DataError(
            f"{num_prompts:,} prompts are too many for an exact comparison",
            where=where,
            expected=f"at most {MAX_ROWS:,}",
            fix="--dedup minhash:0.7",
        )


def _say_memory(prompts: Sequence[str]) -> None:
    """What an exact comparison takes, said before it begins."""
    size = sum(map(len, prompts)) * BYTES_PER_CHARACTER
    if len(prompts) >= SAID_FROM or size >= SAID_FROM_BYTES:
        sys.stderr.write(
            f"an exact comparison of {len(prompts):,} prompts takes about {size / 1e9:.1f} GB, and time that grows "
            "with the square of their number; that of --dedup minhash grows with their number alone\n"
        )


SEARCHES: dict[str, Callable[[Sequence[str], float], Repeats]] = {
    "cosine": cosine_repeats,
    "vaiv": vaiv_repeats,
    "minhash": minhash_repeats,
}
