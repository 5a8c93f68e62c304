"""Streams the elements of a JSON array, so that a file of millions of rows is read in bounded memory.

A window slides over the file; an element is decoded as soon as the window contains it completely.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rlhf.data.byte_streams import opened
from rlhf.data.lines import BOM, LONGEST_LINE, not_encoded
from rlhf.errors import DataError

_CHUNK = 1 << 20  # bytes
_SPACE = " \t\r\n"


class _Window:
    """The part of a file in memory: the current `position` in its `text`, and the `line` of that position."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path, self.text, self.position, self.line = path, "", 0, 1
        self.at_end = False
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        start = self._stream.read(len(BOM))
        self._start = b"" if start == BOM else start

    def grow(self) -> None:
        """Drops the text before `position` and reads as much as is left, at least one chunk."""
        self.text, self.position = self.text[self.position :], 0
        raw = self._start + self._stream.read(max(_CHUNK, len(self.text)))
        self._start = b""
        self.at_end = not raw
        try:
            self.text += self._decoder.decode(raw, final=self.at_end)
        except UnicodeDecodeError as error:
            line = self.line + self.text.count("\n") + error.object.count(b"\n", 0, error.start)
            raise not_encoded(f"{self.path}:{line}", error) from None

    def advance(self, position: int) -> None:
        """Moves to a later position, counting lines."""
        self.line += self.text.count("\n", self.position, position)
        self.position = position

    def peek(self) -> str:
        """The next character that is not whitespace; "" at the end of the file."""
        while True:
            position = self.position
            while position < len(self.text) and self.text[position] in _SPACE:
                position += 1
            self.advance(position)
            if position < len(self.text) or self.at_end:
                return self.text[position : position + 1]
            self.grow()


def array_elements(path: Path) -> Iterator[tuple[int, Any]]:
    """(first line, element) of the array in a file.

    Raises DataError, with file and line, for anything but one complete array in UTF-8, and for an element of more
    than `LONGEST_LINE` characters.
    """
    with opened(path) as stream:
        window = _Window(path, stream)
        window.peek()
        window.advance(window.position + 1)
        while window.peek() not in ("]", ""):
            line = window.line
            yield line, _element(window)
            following = window.peek()
            if following == ",":
                window.advance(window.position + 1)
            elif following != "]":
                where = f"{path}:{window.line}"
                raise DataError("the array is truncated or lacks a comma", where=where, fix="write the file again")
        closed = window.peek() == "]"
        window.advance(window.position + 1)
        if not closed or window.peek():
            raise DataError("the array is not closed at the end", where=str(path), expected="one array, ] last")


def _element(window: _Window) -> Any:
    """Decodes the element at the position of the window, and moves past it."""
    decoder = json.JSONDecoder()
    while True:
        problem: Exception | None = None
        try:
            value, end = decoder.raw_decode(window.text, window.position)
        except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
            problem = error
        if problem is None and (end < len(window.text) or window.at_end):  # a number may continue after the window
            window.advance(end)
            return value
        where = f"{window.path}:{window.line}"
        if problem is not None and (window.at_end or not isinstance(problem, json.JSONDecodeError)):
            place = str(problem)
            if isinstance(problem, json.JSONDecodeError):
                lines = window.text.count("\n", window.position, problem.pos)
                place = f"{problem.msg} on line {window.line + lines}"
            raise DataError(f"invalid JSON in the array's element on this line: {place}", where=where) from None
        if len(window.text) - window.position > LONGEST_LINE:
            problem_text = f"invalid JSON, or an element of more than {LONGEST_LINE >> 20} Mi characters"
            raise DataError(problem_text, where=where) from None
        window.grow()
