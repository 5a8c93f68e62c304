"""What people label: a prompt with two to nine answers, and whose answers they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from rlhf.curate.answer_rows import prompt_value
from rlhf.data.formats import Row, parse, quoted_keys, sniff, text_at
from rlhf.data.readers import locate, read_rows
from rlhf.data.records import Message, Ranking
from rlhf.errors import DataError

MAX_ANSWERS = 9  # one number key each


@dataclass(frozen=True, slots=True)
class LabelItem:
    """One row to label. `models` names who wrote each answer, and is empty where that is not known."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    source: str = ""
    id: str = ""
    models: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hash of prompt and answers: the same row in another file, or at another line, has the same key."""
        content = json.dumps([[asdict(turn) for turn in self.prompt], self.responses], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def to_json(self) -> str:
        """As the store keeps it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> LabelItem:
        """Back from the store."""
        body = json.loads(text)
        prompt = tuple(Message(**turn) for turn in body["prompt"])
        return cls(prompt, tuple(body["responses"]), body["source"], body["id"], tuple(body["models"]))

    def prompt_row(self) -> str | list[dict[str, str]]:
        """The prompt as data files hold it: text, or messages where one user turn does not say it all."""
        return prompt_value(self.prompt)


@dataclass(frozen=True, slots=True)
class ReadItems:
    """The rows that can be labelled, and one line for each that cannot."""

    items: tuple[LabelItem, ...]
    problems: tuple[str, ...]


def read_items(path: str) -> ReadItems:
    """Rows {prompt, responses, source?, id?, models?}, or any ranking file, whose ranks are not looked at.

    Raises DataError for a file that cannot be read, or without one row that can be labelled.
    """
    items: dict[str, LabelItem] = {}
    problems: list[str] = []
    for line, row in read_rows(locate(path)):
        try:
            item = _item(row)
            if item.key in items:
                raise DataError("repeats an earlier row")
            items[item.key] = item
        except DataError as error:
            where = f", {error.where}" if error.where.startswith("key ") else ""
            problems.append(f"line {line}{where}: {error.problem}")
    if not items:
        raise DataError(
            f"no row can be labelled; {problems[0] if problems else 'the file is empty'}",
            where=path,
            expected="rows with `prompt` (text or messages) and `responses` (2 to 9 texts)",
            fix="rlhf data sample writes such a file",
        )
    return ReadItems(tuple(items.values()), tuple(problems))


def _item(row: Row | DataError) -> LabelItem:
    if isinstance(row, DataError):
        raise row
    ranking = _ranking(row)
    if ranking.num_answers > MAX_ANSWERS:
        raise DataError(f"{ranking.num_answers} answers; a person is shown {MAX_ANSWERS} at most")
    number = row.get("id")
    return LabelItem(
        ranking.prompt,
        ranking.responses,
        ranking.source,
        "" if number is None else str(number),
        _models(row, ranking.num_answers),
    )


def _ranking(row: Row) -> Ranking:
    if isinstance(row.get("responses"), list):
        unranked: dict[str, Any] = {key: value for key, value in row.items() if key != "scores"}
        record = parse({**unranked, "ranks": [1] * len(row["responses"])}, "ranking", "")
    else:
        record = parse(row, sniff(row), "")
    if isinstance(record, Ranking):
        return record
    raise DataError(f"no answers to rank; the row has {quoted_keys(row)}")


def _models(row: Row, num_answers: int) -> tuple[str, ...]:
    models = row.get("models")
    if models is None:
        return ()
    if not isinstance(models, list) or len(models) != num_answers:
        raise DataError(f"is not a list of {num_answers} names, one for each answer", where="key `models`")
    texts = {f"models[{index}]": value for index, value in enumerate(models)}
    return tuple(text_at(texts, name) for name in texts)
