"""What the filters keep of the rows of a file: the prompts on the disk, and one byte for why a row is dropped."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlhf.curate.output import EXAMPLES

_SURROGATES = "surrogatepass"  # half a surrogate pair is text too


class StoredTexts(Sequence[str]):
    """Texts in a file without a name, which ends with this object; 8 bytes per text stay in memory.

    Args:
        folder: where the file is made; must have room for the texts.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Adds a text."""
        raw = text.encode("utf-8", _SURROGATES)
        self._file.write(raw)
        self._ends.append(self._ends[-1] + len(raw))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: Any) -> Any:
        start, end = self._ends[number], self._ends[number + 1]
        self._file.flush()
        return os.pread(self._file.fileno(), end - start, start).decode("utf-8", _SURROGATES)

    def close(self) -> None:
        """Deletes the texts."""
        self._file.close()


class Some(Sequence[str]):
    """Those of the texts that have the numbers."""

    def __init__(self, texts: Sequence[str], numbers: Sequence[int]) -> None:
        self._texts, self._numbers = texts, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return (self._texts[number] for number in self._numbers)

    def __getitem__(self, number: Any) -> Any:
        return self._texts[self._numbers[number]]


class Drops:
    """Which rows are dropped and for which of `reasons`; of each reason, the texts of the first few rows."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self._reasons = [*reasons]
        self._codes = bytearray()  # per row; 0: kept
        self._shown: dict[str, dict[int, str]] = {reason: {} for reason in reasons}

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, reason: str = "", evidence: str = "") -> None:
        """Adds the next row, kept or dropped."""
        self._codes.append(0)
        if reason:
            self.drop(len(self._codes) - 1, reason, evidence)

    def drop(self, number: int, reason: str, evidence: str) -> None:
        """Drops a row that was kept; a row dropped before keeps its reason. Rows of a reason come in their order."""
        if self._codes[number]:
            return
        self._codes[number] = self._reasons.index(reason) + 1
        shown = self._shown[reason]
        if evidence and len(shown) < EXAMPLES:
            shown[number] = evidence

    def of(self, number: int) -> tuple[str, str] | None:
        """(reason, text that shows it, "" where enough are shown) of a dropped row; None for one that is kept."""
        if not self._codes[number]:
            return None
        reason = self._reasons[self._codes[number] - 1]
        return reason, self._shown[reason].get(number, "")

    @property
    def num_kept(self) -> int:
        """Rows that are not dropped so far."""
        return self._codes.count(0)

    def kept(self) -> array[int]:
        """The numbers of the rows that are kept."""
        return array("q", (number for number, code in enumerate(self._codes) if not code))
