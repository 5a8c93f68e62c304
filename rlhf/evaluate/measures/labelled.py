"""Labelled sentences: the shipped ones, half of them held out, or rows of a file.

The half is decided by a hash of the text. Rules are written by looking at the development half only; a figure of the
held-out half says how they do on sentences they were not made for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.data.readers import Row, locate, read_rows
from rlhf.data.records import check_text
from rlhf.data.sources import placed
from rlhf.errors import DataError
from rlhf.evaluate.safety.prompts import CATEGORIES, RedTeamPrompt, read_red_team
from rlhf.evaluate.safety.reactions import REACTIONS

FOLDER = Path(__file__).parent / "labelled"
YES, NO = "yes", "no"
# The labels a sentence can have, by measure.
LABELS: dict[str, tuple[str, ...]] = {
    "rude": (YES, NO),
    "hate": (YES, NO),
    "refusal": (YES, NO),
    "register": ("polite", "plain", "mixed", "none"),
    "reaction": REACTIONS,
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A sentence with the label a person gave it.

    kind: the category it is counted in, such as a kind of spelling; prompt: what it answers, of a reaction.
    """

    measure: str
    text: str
    label: str
    kind: str = ""
    prompt: RedTeamPrompt | None = None

    @property
    def held_out(self) -> bool:
        """Whether rules may not be written by looking at it: the first byte of SHA-256 of the text is odd."""
        return hashlib.sha256(self.text.encode()).digest()[0] % 2 == 1


def shipped(measure: str) -> list[Labelled]:
    """The sentences that come with the package."""
    return read_labelled(str(FOLDER / f"{measure}.jsonl"), measure)


def read_labelled(path: str, measure: str = "") -> list[Labelled]:
    """Rows {text, label, measure?, kind?, prompt?} of a file; `measure` is that of rows that name none.

    A reaction's `prompt` is the id of a shipped prompt, or a text whose `kind` is its category.

    Raises: DataError, naming file and line, for a bad row.
    """
    known = {prompt.id: prompt for prompt in read_red_team()}
    return list(_rows(path, measure, known))


def _rows(path: str, measure: str, known: dict[str, RedTeamPrompt]) -> Iterator[Labelled]:
    empty = True
    for line, row in read_rows(locate(path)):
        empty = False
        try:
            yield _labelled(row, measure, known)
        except DataError as error:
            raise (error if isinstance(row, DataError) else placed(error, f"{path}:{line}")) from None
    if empty:
        raise DataError("no rows", where=path, expected="at least one labelled sentence")


def _labelled(row: Row | DataError, default: str, known: dict[str, RedTeamPrompt]) -> Labelled:
    if isinstance(row, DataError):
        raise row
    measure, kind = row.get("measure", default), row.get("kind", "")
    if measure not in LABELS:
        raise DataError(f"is {measure!r}", where="key `measure`", expected=f"one of {', '.join(LABELS)}")
    check_text(row.get("text", ""), "the text")
    prompt = _prompt(row.get("prompt"), str(kind), known) if measure == "reaction" else None
    return Labelled(measure, row["text"], _label(row.get("label"), measure), str(kind), prompt)


def _label(value: Any, measure: str) -> str:
    label = {True: YES, False: NO}.get(value, value) if isinstance(value, bool) else value
    if label not in LABELS[measure]:
        expected = "true or false" if YES in LABELS[measure] else f"one of {', '.join(LABELS[measure])}"
        raise DataError(f"is {value!r}", where="key `label`", expected=expected)
    return str(label)


def _prompt(value: Any, kind: str, known: dict[str, RedTeamPrompt]) -> RedTeamPrompt:
    if not isinstance(value, str) or not value:
        raise DataError(f"is {value!r}", where="key `prompt`", expected="what the answer replies to")
    if value in known:
        return known[value]
    if kind not in CATEGORIES:
        fix = "give the id of a shipped prompt, or the category in `kind`"
        raise DataError(f"is {kind!r}", where="key `kind`", expected=f"one of {', '.join(CATEGORIES)}", fix=fix)
    return RedTeamPrompt("", kind, value)
