"""Takes out of texts what no reader sees and no model should learn: special tokens, invisible and control characters.

Each pattern is taken out wherever it stands and as a whole (stripping a set of characters off the ends, as
`text.strip("<|endoftext|>")` does, would eat letters of the answer and leave what stands inside it).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from rlhf.curate.row_texts import spoken_strings, with_texts_changed
from rlhf.curate.text_faults import CONTROL, INVISIBLE, SPECIAL
from rlhf.data.readers import NumberedRow, Row
from rlhf.errors import DataError


def cleaned(text: str) -> str:
    """NFC, without special tokens, invisible and control characters, and without whitespace outside.

    A template's headings (### 응답:) stay: without them two turns would run into one.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    without = SPECIAL.sub(lambda found: found.group() if found.group().startswith("#") else "", text)
    return CONTROL.sub("", INVISIBLE.sub("", without)).strip()


class Cleaner:
    """Cleans rows as they are read, and remembers by number (from 0) the rows of which a text vanished."""

    def __init__(self) -> None:
        self.emptied: set[int] = set()
        self.num_changed = 0  # texts

    def rows(self, rows: Iterator[NumberedRow]) -> Iterator[NumberedRow]:
        """The rows, cleaned; one that would lose a whole text comes as it was."""
        self.num_changed = 0
        for number, (line, row) in enumerate(rows):
            yield line, row if isinstance(row, DataError) else self._row(number, row)

    def _row(self, number: int, row: Row) -> Row:
        before = list(spoken_strings(row))
        after = [cleaned(text) for text in before]
        if any(text.strip() and not clean for text, clean in zip(before, after, strict=True)):
            self.emptied.add(number)
            return row
        changed = sum(text.strip() != clean for text, clean in zip(before, after, strict=True))
        self.num_changed += changed
        return with_texts_changed(row, cleaned) if changed else row
