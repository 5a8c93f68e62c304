"""Keys seen before, in bounded memory: a 64-bit hash and a line number each, 12 bytes.

Two different keys share a hash in about one of 37 million files of a million rows.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy

MAX_LINE = 2**32 - 1


class KeyMatch(NamedTuple):
    """A line, and the line with the same key (in the other file where there are two)."""

    line: int
    other: int


class KeyMatches(NamedTuple):
    """The number of matches, and the first few by line."""

    total: int
    first: list[KeyMatch]


class SeenKeys:
    """Hashed keys with their lines, in the order of the lines."""

    def __init__(self) -> None:
        self._hashes, self._lines = array("q"), array("I")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, key: object, line: int) -> None:
        """Adds a key, such as a text or a tuple of texts, of a line."""
        self._hashes.append(hash(key))
        self._lines.append(min(line, MAX_LINE))

    def first_places(self) -> numpy.ndarray:
        """[N] index of the first key that equals each key."""
        _, first, inverse = numpy.unique(numpy.array(self._hashes), return_index=True, return_inverse=True)
        return first[inverse]

    def repeated(self, limit: int, again: numpy.ndarray | None = None) -> KeyMatches:
        """Keys (or those where `again` is True) with the line of the first equal key; a first key is no repeat."""
        first, lines = self.first_places(), numpy.array(self._lines)
        again = first != numpy.arange(len(first)) if again is None else again
        return _matches(lines[again], lines[first[again]], limit)

    def within(self, other: SeenKeys, limit: int) -> KeyMatches:
        """Keys that `other` also has, each with its first line there."""
        if not len(self) or not len(other):
            return KeyMatches(0, [])
        others, first = numpy.unique(numpy.array(other._hashes), return_index=True)
        hashes, lines = numpy.array(self._hashes), numpy.array(self._lines)
        places = numpy.minimum(numpy.searchsorted(others, hashes), len(others) - 1)
        same = others[places] == hashes
        return _matches(lines[same], numpy.array(other._lines)[first[places[same]]], limit)


class SeenPreferences:
    """Pairs of answers and which of the two is better, to find pairs that are ranked both ways."""

    def __init__(self) -> None:
        self._pairs, self._smaller_wins = SeenKeys(), array("b")

    def add(self, prompt: str, better: str, worse: str, line: int) -> None:
        """Adds a pair of different answers."""
        self._pairs.add((prompt, min(better, worse), max(better, worse)), line)
        self._smaller_wins.append(better < worse)

    def conflicts(self, limit: int) -> KeyMatches:
        """Pairs ranked the other way by the first row with the same pair."""
        wins = numpy.array(self._smaller_wins)
        return self._pairs.repeated(limit, wins != wins[self._pairs.first_places()])


def _matches(lines: numpy.ndarray, others: numpy.ndarray, limit: int) -> KeyMatches:
    order = numpy.argsort(lines, kind="stable")[:limit]
    return KeyMatches(len(lines), [KeyMatch(int(lines[place]), int(others[place])) for place in order])
