"""Rows whose answers are marked good or bad one by one, in the formats of demonstrations with a label beside them."""

from __future__ import annotations

from collections.abc import Collection

from rlhf.data.formats import parse
from rlhf.data.public_shapes import LABELS, label_of
from rlhf.data.records import Demonstration, MarkedAnswers, Record
from rlhf.data.row_values import Row
from rlhf.errors import DataError


def parse_marked(
    row: Row, format: str, source: str, *, ignore: Collection[str] = (), unread: dict[str, int] | None = None
) -> Record:
    """As `parse`, for answers that are judged one by one: a demonstration becomes an answer with its label's verdict.

    A ranking stays one.

    Raises:
        DataError: as `parse`, and for an answer without a label.
    """
    key, good = label_of(row)
    labelled = row.get(key) is not None
    plain = {**row, key: None} if labelled and good is not None else row
    record = parse(plain, format, source, ignore=ignore, unread=unread)
    if not isinstance(record, Demonstration):
        return record
    if good is None:
        raise DataError(
            "no label says whether the answer is good",
            where=f"key `{key}`",
            expected=f"one of the keys {', '.join(LABELS)} with true or false, or up or down",
        )
    return MarkedAnswers(record.prompt, record.answers, (good,), record.source)
