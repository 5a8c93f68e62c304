"""Which tokens attend to which in a packed row.

A packed row holds many sequences one after another. Each segment attends causally to itself and, whole, to
its prefix. A plain sequence has an empty prefix. K answers to one prompt are a tree: the prompt is one segment,
and each answer is a segment whose prefix is the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Segment:
    """Span [start, end) of a row; it also sees all of [prefix_start, prefix_end)."""

    start: int
    end: int
    prefix_start: int = 0
    prefix_end: int = 0

    @property
    def has_prefix(self) -> bool:
        return self.prefix_end > self.prefix_start


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of one packed row, in order, covering it without a gap.

    `plans` keeps what an attention kernel derives from the spans, by device and dtype; it is no part of the value.
    """

    spans: tuple[Segment, ...]
    plans: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    def of_lengths(cls, lengths: Sequence[int]) -> Segments:
        """Plain sequences of these lengths, one after another."""
        spans, start = [], 0
        for length in lengths:
            spans.append(Segment(start, start + length))
            start += length
        return cls(tuple(spans))

    @property
    def has_trees(self) -> bool:
        return any(span.has_prefix for span in self.spans)

    @property
    def longest(self) -> int:
        """Most tokens that one token may see: those of a segment and its prefix."""
        return max(span.end - span.start + span.prefix_end - span.prefix_start for span in self.spans)
