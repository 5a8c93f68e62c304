"""Texts met before, in bounded memory: a 64-bit hash and a line number each, 12 bytes, sorted at the end.

Two different texts share a hash about once in 37 million files of a million rows.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy

MAX_LINE = 2**32 - 1


class Meeting(NamedTuple):
    """A line, and the line that has the same; `other` is in the other file where there are two."""

    line: int
    other: int


class Meetings(NamedTuple):
    """How many there are, and the first of them by line."""

    total: int
    first: list[Meeting]


class SeenKeys:
    """Hashed keys with their lines."""

    def __init__(self) -> None:
        self._hashes, self._lines = array("q"), array("I")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, key: object, line: int) -> None:
        """Remembers a text (or a tuple of texts) of a line."""
        self._hashes.append(hash(key))
        self._lines.append(min(line, MAX_LINE))

    def _sorted(self) -> tuple[numpy.ndarray, numpy.ndarray]:
        hashes = numpy.frombuffer(self._hashes, dtype=numpy.int64)
        order = numpy.argsort(hashes, kind="stable")
        return hashes[order], numpy.frombuffer(self._lines, dtype=numpy.uint32)[order]

    def repeated(self, limit: int) -> Meetings:
        """Keys that came before, each with the line of the first."""
        if len(self) < 2:
            return Meetings(0, [])
        hashes, lines = self._sorted()
        starts = numpy.concatenate([[True], hashes[1:] != hashes[:-1]])
        first = lines[numpy.maximum.accumulate(numpy.where(starts, numpy.arange(len(hashes)), 0))]
        return _meetings(lines[~starts], first[~starts], limit)

    def within(self, other: SeenKeys, limit: int) -> Meetings:
        """Keys that `other` has too, each with the first line there."""
        if not len(self) or not len(other):
            return Meetings(0, [])
        hashes, lines = self._sorted()
        others, other_lines = other._sorted()
        places = numpy.minimum(numpy.searchsorted(others, hashes), len(others) - 1)
        same = others[places] == hashes
        return _meetings(lines[same], other_lines[places[same]], limit)


class Judgements:
    """Pairs of answers by which of the two is better, to find those judged both ways."""

    def __init__(self) -> None:
        self._pairs, self._smaller_wins = SeenKeys(), array("b")

    def add(self, prompt: str, better: str, worse: str, line: int) -> None:
        """Remembers a pair of different answers."""
        self._pairs.add((prompt, min(better, worse), max(better, worse)), line)
        self._smaller_wins.append(better < worse)

    def conflicts(self, limit: int) -> Meetings:
        """Pairs judged against an earlier judgement, each with the line of that."""
        if len(self._pairs) < 2:
            return Meetings(0, [])
        hashes = numpy.frombuffer(self._pairs._hashes, dtype=numpy.int64)
        order = numpy.argsort(hashes, kind="stable")
        hashes, lines = hashes[order], numpy.frombuffer(self._pairs._lines, dtype=numpy.uint32)[order]
        wins = numpy.frombuffer(self._smaller_wins, dtype=numpy.int8)[order]
        starts = numpy.concatenate([[True], hashes[1:] != hashes[:-1]])
        first = numpy.maximum.accumulate(numpy.where(starts, numpy.arange(len(hashes)), 0))
        against = wins != wins[first]
        return _meetings(lines[against], lines[first[against]], limit)


def _meetings(lines: numpy.ndarray, others: numpy.ndarray, limit: int) -> Meetings:
    order = numpy.argsort(lines, kind="stable")[:limit]
    return Meetings(len(lines), [Meeting(int(lines[place]), int(others[place])) for place in order])
