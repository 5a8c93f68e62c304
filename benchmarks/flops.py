"""Model FLOP/s utilisation (MFU): the operations of a training step by formula, over the peak of the card.

Counted as in PaLM (arXiv:2204.02311, appendix B): forward 2 operations per weight of a matrix product and token, the
backward pass twice the forward one, nothing for recomputed activations, norms, activations or the optimizer. Two things
are counted more exactly than there: attention for the (query, key) pairs that a causal mask lets through, not for all,
and the head for the positions it is read at, not for every token. The last MLP counts for every token, although it too
runs where the output is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rlhf.ops.segments import Segments
from rlhf.plan.shapes import ModelShape

TRAINING = 3  # forward once, backward twice that

# Dense bfloat16 operations per second, by what the driver calls the card; the first name that fits counts.
# NVIDIA's data sheets: A100 (2021), H100 (2023) and H200 (2024), whose figures for Hopper are with sparsity, so halved.
PEAKS = (
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
)


@dataclass(frozen=True, slots=True)
class Work:
    """What a batch asks of a model: tokens, (query, key) pairs of attention, positions at which the head is read."""

    tokens: int
    pairs: int
    read: int

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[Segments, int]]) -> Work:
        """The sum over packed rows, each given by its segments and its number of read positions."""
        tokens = pairs = read = 0
        for segments, positions in rows:
            tokens += segments.spans[-1].end
            pairs += attended_pairs(segments)
            read += positions
        return cls(tokens, pairs, read)


def peak_flops(card: str) -> float | None:
    """Peak of a card by its name; None for one that the table lacks."""
    return next((peak for name, peak in PEAKS if name.lower() in card.lower()), None)


def attended_pairs(segments: Segments) -> int:
    """Pairs of a query and a key it sees: all of the prefix, and the segment itself up to the query."""
    pairs = 0
    for span in segments.spans:
        own, prefix = span.end - span.start, span.prefix_end - span.prefix_start
        pairs += own * prefix + own * (own + 1) // 2
    return pairs


def forward_flops(shape: ModelShape, work: Work) -> int:
    """Matrix products of the layers, the two of attention (scores, and weighted values), and the head."""
    head = shape.width if shape.scalar else shape.embedding
    layers = 2 * shape.layers * shape.linear_weights * work.tokens
    return layers + 4 * shape.layers * shape.attended * work.pairs + 2 * head * work.read


def training_flops(shape: ModelShape, work: Work) -> int:
    return TRAINING * forward_flops(shape, work)
