"""Rows of a prompt with several answers, ranked or not: `data sample` writes them, judges and people rank them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.data.formats import parse, sniff
from rlhf.data.readers import Row, locate, read_rows, usable
from rlhf.data.records import Message, Ranking
from rlhf.data.row_values import quoted_keys
from rlhf.data.sources import placed
from rlhf.errors import DataError

_PER_ANSWER = ("responses", "answers", "models")  # keys of lists with one entry per answer


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A prompt and its answers, none empty.

    per_answer: further lists of the row with one entry per answer (`answers`, `models`), to be passed on.
    num_empty: empty answers that were dropped.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    source: str
    per_answer: Mapping[str, Any]
    num_empty: int = 0

    @property
    def distinct(self) -> tuple[str, ...]:
        """The different answers, in the order of their first occurrence."""
        return tuple(dict.fromkeys(self.responses))


def read_answer_rows(path: str) -> Iterator[AnswerRow | DataError]:
    """Every row; one that is not a prompt with two answers or more is yielded as its error, with file and line.

    Reads {prompt, responses} and every ranking format; ranks are ignored.
    """
    for line, row in read_rows(locate(path)):
        try:
            yield _answer_row(usable(row))
        except DataError as error:
            yield error if isinstance(row, DataError) else placed(error, f"{path}:{line}")


def unranked(row: Row) -> Ranking:
    """The prompt and the answers of a row. A row with `responses` needs no ranks, and loses those it has."""
    if isinstance(row.get("responses"), list):
        plain: Row = {key: value for key, value in row.items() if key != "scores"}
        record = parse({**plain, "ranks": [1] * len(row["responses"])}, "ranking", "")
    else:
        record = parse(row, sniff(row), "")
    if isinstance(record, Ranking):
        return record
    raise DataError(
        f"no answers to rank; the row has {quoted_keys(row)}",
        expected="prompt and responses, or chosen and rejected",
        fix="rlhf data sample writes such a file",
    )


def prompt_value(messages: Sequence[Message]) -> str | list[dict[str, str]]:
    """A prompt as data files hold it: text for a single user turn without an input, else a list of messages."""
    if len(messages) == 1 and messages[0].role == "user" and not messages[0].input:
        return messages[0].content
    return [message.as_row() for message in messages]


def _answer_row(row: Row) -> AnswerRow:
    given = row.get("responses")
    if not isinstance(given, list):
        record = unranked(row)
        return AnswerRow(record.prompt, record.responses, record.source, {})
    kept = [index for index, text in enumerate(given) if not isinstance(text, str) or text.strip()]
    if len(kept) < 2:
        raise DataError(f"{len(kept)} answers that are not empty", where="key `responses`", expected="two or more")
    lists = {key: row[key] for key in _PER_ANSWER if isinstance(row.get(key), list) and len(row[key]) == len(given)}
    chosen = {key: [values[index] for index in kept] for key, values in lists.items()}
    record = unranked({**row, "responses": chosen.pop("responses")})
    return AnswerRow(record.prompt, record.responses, record.source, chosen, len(given) - len(kept))
