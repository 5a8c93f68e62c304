"""The answers of a data row of any format, as a reward model scores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf.curate.answer_rows import unranked
from rlhf.data.formats import parse, sniff
from rlhf.data.marked import parse_marked
from rlhf.data.public_shapes import label_of
from rlhf.data.readers import Row
from rlhf.data.records import Message
from rlhf.data.row_values import quoted_keys
from rlhf.errors import DataError

_STAND_IN = "."  # for an empty answer, which no format allows


@dataclass(frozen=True, slots=True)
class Answers:
    """A prompt and its answers in the order of the row, empty ones included; `finished`: whether each ended in EOS."""

    prompt: tuple[Message, ...]
    texts: tuple[str, ...]
    finished: tuple[bool, ...]


def answers_of(row: Row) -> Answers:
    """The answers of a ranking, a pair or a demonstration, or of {prompt, responses}, ranked or not.

    An answer did not finish where the row says so in `answers[].finished`, as `rlhf data sample` writes it.

    Raises: DataError, naming the key, for a row without answers or with bad values.
    """
    given = row.get("responses")
    if not isinstance(given, list) or not given:
        read = parse if label_of(row)[1] is None else parse_marked  # good or bad: both are scored
        record = read(row, sniff(row), "")
        if not record.answers:
            raise DataError(f"no answer to score; the row has {quoted_keys(row)}", expected="a prompt with answers")
        return Answers(record.prompt, record.answers, (True,) * len(record.answers))
    empty = [isinstance(text, str) and not text.strip() for text in given]
    texts = [_STAND_IN if blank else text for text, blank in zip(given, empty, strict=True)]
    ranking = unranked({**row, "responses": texts if len(texts) > 1 else texts * 2})  # a ranking has two at least
    found = ranking.responses[: len(texts)]
    return Answers(
        ranking.prompt,
        tuple("" if blank else text for text, blank in zip(found, empty, strict=True)),
        tuple(_finished(row.get("answers"), index) for index in range(len(texts))),
    )


def _finished(about: Any, index: int) -> bool:
    """What `answers` says of an answer; True where it says nothing."""
    if not isinstance(about, list) or index >= len(about) or not isinstance(about[index], dict):
        return True
    return about[index].get("finished") is not False
