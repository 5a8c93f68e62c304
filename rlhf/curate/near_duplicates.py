"""Near-duplicate texts: TF-IDF vectors and an exact search for all pairs above a cosine.

For Korean the default vectors count character 2-3-grams, because endings change the words of near-duplicates.

The search skips every pair that cannot reach the threshold. Features are ordered from rare to common; a row's
*signature* is the shortest run of its rarest features such that the rest has a norm below half the threshold.
Of two rows, take the one whose signature ends earlier in that order: what it shares with the other row lies in both
signatures, or in its rest. So the cosine is at most the product of the signatures plus the norm of a rest
(the prefix filter of Bayardo et al., WWW 2007), and it is computed only where that bound reaches the threshold.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from rlhf.curate.output import progress

MAX_ROWS = 200_000  # the time of an exact search grows with the square of the rows
SAID_ABOVE_S = 30.0  # seconds that an exact search takes before its time is announced
_BLOCK_PRODUCTS = 20_000_000  # multiplications per block, which bound its memory to about 300 MB
_CHECKED_AT_ONCE = 100_000
_SLACK = 1e-9  # rounding of float64 sums
Indices = NDArray[np.int64]


class Pairs(NamedTuple):
    """Pairs of rows, ordered by `rows`, with `columns[k]` < `rows[k]`, and their cosines."""

    rows: Indices
    columns: Indices
    cosines: NDArray[np.float64]


def character_vectors(texts: Sequence[str]) -> csr_matrix:
    """[N, features] TF-IDF of lower-cased character 2-3-grams, each row of norm 1 (0 for a text too short)."""
    return _fitted(texts, analyzer="char", ngram_range=(2, 3))


def word_vectors(texts: Sequence[str]) -> csr_matrix:
    """[N, features] TF-IDF of words by scikit-learn's defaults, each row of norm 1 or 0."""
    return _fitted(texts)


def _fitted(texts: Sequence[str], **options: Any) -> csr_matrix:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(**options)
    build = vectorizer.build_analyzer()
    if not any(build(text) for text in texts):  # scikit-learn refuses an empty vocabulary
        return csr_matrix((len(texts), 1))
    return csr_matrix(vectorizer.fit_transform(texts))


def similar_pairs(vectors: csr_matrix, threshold: float) -> Iterator[Pairs]:
    """All pairs of rows with a cosine of at least `threshold`, in blocks of ascending rows.

    Args:
        vectors: [N, features], non-negative, each row of norm 1 or 0.
        threshold: above 0, at most 1.
    """
    ordered, signatures, rest = _signatures(vectors, threshold)
    transposed = signatures.T.tocsr()
    for start, end in _told(_blocks(signatures), signatures.shape[0]):
        found = (signatures[start:end] @ transposed[:, :end]).tocoo()
        rows, columns = found.row.astype(np.int64) + start, found.col.astype(np.int64)
        bound = found.data + np.maximum(rest[rows], rest[columns])
        possible = (columns < rows) & (bound >= threshold - _SLACK)
        yield _exact(ordered, rows[possible], columns[possible], threshold)


def _told(blocks: Iterator[tuple[int, int]], num_rows: int) -> Iterator[tuple[int, int]]:
    """The blocks; after the first, what the rest will take is said where it is long. Each takes about the same time."""
    every, started = list(blocks), time.perf_counter()
    for number, block in enumerate(progress(every, "comparing", len(every), unit=" blocks")):
        if number == 1 and (rest_s := (time.perf_counter() - started) * (len(every) - 1)) > SAID_ABOVE_S:
            sys.stderr.write(f"{num_rows:,} texts are compared exactly: about {math.ceil(rest_s / 60)} min\n")
        yield block


def _signatures(vectors: csr_matrix, threshold: float) -> tuple[csr_matrix, csr_matrix, NDArray[np.float64]]:
    """The vectors with features from rare to common, their signatures, and the norm of each row's rest.

    A longer signature costs more to compare and leaves fewer pairs to compute; half the threshold is fastest.
    """
    limit = threshold / 2
    frequency = np.bincount(vectors.indices, minlength=vectors.shape[1])
    position = np.empty(len(frequency), dtype=np.int64)
    position[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
    ordered = csr_matrix((vectors.data.copy(), position[vectors.indices], vectors.indptr), shape=vectors.shape)
    ordered.sort_indices()
    squares = np.concatenate(([0.0], np.cumsum(ordered.data**2)))
    row_of = np.repeat(np.arange(ordered.shape[0]), np.diff(ordered.indptr))
    before = squares[:-1] - squares[ordered.indptr[row_of]]  # squared norm of the rarer features of the row
    whole = squares[ordered.indptr[1:]] - squares[ordered.indptr[:-1]]
    inside = whole[row_of] - before >= limit**2
    lengths = np.bincount(row_of[inside], minlength=ordered.shape[0])
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    signatures = csr_matrix((ordered.data[inside], ordered.indices[inside], bounds), shape=ordered.shape)
    kept = np.bincount(row_of[inside], weights=ordered.data[inside] ** 2, minlength=ordered.shape[0])
    return ordered, signatures, np.sqrt(np.maximum(whole - kept, 0.0))


def _blocks(signatures: csr_matrix) -> Iterator[tuple[int, int]]:
    """(start, end) of blocks whose product with all rows before `end` stays within the memory bound."""
    frequency = np.bincount(signatures.indices, minlength=signatures.shape[1])
    per_feature = np.concatenate(([0], np.cumsum(frequency[signatures.indices])))
    work = per_feature[signatures.indptr]
    start, num_rows = 0, signatures.shape[0]
    while start < num_rows:
        end = int(np.searchsorted(work, work[start] + _BLOCK_PRODUCTS, side="right")) - 1
        end = min(max(end, start + 1), num_rows)
        yield start, end
        start = end


def _exact(vectors: csr_matrix, rows: Indices, columns: Indices, threshold: float) -> Pairs:
    """The pairs that reach the threshold."""
    cosines = np.empty(len(rows))
    for start in range(0, len(rows), _CHECKED_AT_ONCE):
        part = slice(start, start + _CHECKED_AT_ONCE)
        cosines[part] = np.asarray(vectors[rows[part]].multiply(vectors[columns[part]]).sum(axis=1)).ravel()
    reached = np.flatnonzero(cosines >= threshold - _SLACK)
    order = reached[np.lexsort((columns[reached], rows[reached]))]
    return Pairs(rows[order], columns[order], cosines[order])


def clusters(vectors: csr_matrix, threshold: float, links: Sequence[tuple[int, int]] = ()) -> Indices:
    """[N] cluster of each row: rows are joined by chains of pairs of at least `threshold`, and by `links`."""
    joined = np.array(links, dtype=np.int64).reshape(-1, 2)
    labels = _joined(np.arange(vectors.shape[0], dtype=np.int64), joined[:, 0], joined[:, 1])
    for pairs in similar_pairs(vectors, threshold):
        labels = _joined(labels, pairs.rows, pairs.columns)
    return labels


def _joined(labels: Indices, rows: Indices, columns: Indices) -> Indices:
    """The labels after joining the clusters of each pair."""
    size = len(labels)
    edges = csr_matrix((np.ones(len(rows), dtype=bool), (labels[rows], labels[columns])), shape=(size, size))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)[labels]
