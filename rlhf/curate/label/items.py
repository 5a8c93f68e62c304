"""The rows that people label: a prompt with two to nine answers, and the models that wrote them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from rlhf.curate.answer_rows import unranked
from rlhf.data.readers import Row, locate, read_rows, usable
from rlhf.data.records import Message
from rlhf.data.row_values import key_of, text_at
from rlhf.errors import DataError

MAX_ANSWERS = 9  # one number key for each


@dataclass(frozen=True, slots=True)
class LabelItem:
    """One row to label. `models` names the model of each answer; it is empty where the models are unknown."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    source: str = ""
    id: str = ""
    models: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hash of prompt and answers: equal for the same row in another file or at another line."""
        content = json.dumps([[asdict(turn) for turn in self.prompt], self.responses], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()


ITEM = TypeAdapter(LabelItem)  # to and from the JSON of the store


def read_items(path: str) -> tuple[tuple[LabelItem, ...], tuple[str, ...]]:
    """The rows that can be labelled, and one line of text for each row that cannot.

    Reads {prompt, responses, source?, id?, models?} and every ranking format; ranks are ignored.

    Raises DataError for a file that cannot be read, or without any row that can be labelled.
    """
    items: dict[str, LabelItem] = {}
    problems: list[str] = []
    for line, row in read_rows(locate(path)):
        try:
            item = _item(usable(row))
            if item.key in items:
                raise DataError("repeats an earlier row")
            items[item.key] = item
        except DataError as error:
            place = ", ".join(filter(None, (f"line {line}", key_of(error))))
            problems.append(f"{place}: {error.problem}")
    if not items:
        raise DataError(
            f"no row can be labelled; {problems[0] if problems else 'the file is empty'}",
            where=path,
            expected="rows with `prompt` (text or messages) and `responses` (2 to 9 texts)",
            fix="rlhf data sample writes such a file",
        )
    return tuple(items.values()), tuple(problems)


def _item(row: Row) -> LabelItem:
    ranking = unranked(row)
    if ranking.num_answers > MAX_ANSWERS:
        raise DataError(f"{ranking.num_answers} answers; the page shows {MAX_ANSWERS} at most")
    number = row.get("id")
    return LabelItem(
        ranking.prompt,
        ranking.responses,
        ranking.source,
        "" if number is None else str(number),
        _models(row, ranking.num_answers),
    )


def _models(row: Row, num_answers: int) -> tuple[str, ...]:
    models = row.get("models")
    if models is None:
        return ()
    if not isinstance(models, list) or len(models) != num_answers:
        raise DataError(f"is not a list of {num_answers} names, one for each answer", where="key `models`")
    texts = {f"models[{index}]": value for index, value in enumerate(models)}
    return tuple(text_at(texts, name) for name in texts)
