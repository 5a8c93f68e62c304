"""Rows of a prompt and K answers, ranked or not: what `data sample` writes and `data judge` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlhf.data.formats import parse, quoted_keys, sniff
from rlhf.data.readers import locate, read_rows
from rlhf.data.records import Message, Ranking
from rlhf.data.sources import placed
from rlhf.errors import DataError

_PER_ANSWER = ("responses", "answers", "models")


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A prompt and its answers, one or more, none empty.

    about: what a row says of each answer (`answers`, `models`), to be passed on.
    num_empty: answers that were empty and left out.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    source: str
    about: Mapping[str, Any]
    num_empty: int = 0

    @property
    def distinct(self) -> tuple[str, ...]:
        """The different answers, in the order they first come in."""
        return tuple(dict.fromkeys(self.responses))


def read_answer_rows(path: str) -> Iterator[tuple[int, AnswerRow | DataError]]:
    """Every row with its line; a row that is no prompt with answers comes as the error it is, file and line named.

    Reads {prompt, responses} and any ranking format, whose ranks are not looked at.
    """
    for line, row in read_rows(locate(path)):
        try:
            yield line, _answer_row(row)
        except DataError as error:
            yield line, error if isinstance(row, DataError) else placed(error, f"{path}:{line}")


def prompt_value(messages: Sequence[Message]) -> str | list[dict[str, str]]:
    """A prompt as data files hold it: text, or messages where one user turn does not say it all."""
    if len(messages) == 1 and messages[0].role == "user" and not messages[0].input:
        return messages[0].content
    return [{key: value for key, value in asdict(message).items() if value} for message in messages]


def _answer_row(row: Mapping[str, Any] | DataError) -> AnswerRow:
    if isinstance(row, DataError):
        raise row
    if not isinstance(row.get("responses"), list):
        return _of_ranking(parse(row, sniff(row), ""), row, {}, 0)
    kept = [index for index, text in enumerate(row["responses"]) if not isinstance(text, str) or text.strip()]
    about = {key: row[key] for key in _PER_ANSWER if _fits(row.get(key), len(row["responses"]))}
    chosen = {key: [values[index] for index in kept] for key, values in about.items()}
    if len(kept) < 2:
        raise DataError(f"{len(kept)} answers that are not empty", where="key `responses`", expected="two or more")
    plain = {key: value for key, value in row.items() if key != "scores"}
    record = parse({**plain, "responses": chosen.pop("responses"), "ranks": [1] * len(kept)}, "ranking", "")
    return _of_ranking(record, row, chosen, len(row["responses"]) - len(kept))


def _fits(values: object, count: int) -> bool:
    return isinstance(values, list) and len(values) == count


def _of_ranking(record: object, row: Mapping[str, Any], about: Mapping[str, Any], num_empty: int) -> AnswerRow:
    if not isinstance(record, Ranking):
        raise DataError(
            f"no answers to judge; the row has {quoted_keys(row)}",
            expected="prompt and responses, or chosen and rejected",
            fix="rlhf data sample writes such a file",
        )
    return AnswerRow(record.prompt, record.responses, record.source, about, num_empty)
