"""Requests lists of JSON objects and texts from a language model; unusable replies are returned as Rejected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeVar

from rlhf.curate.augment.options import AugmentOptions
from rlhf.curate.augment.prompts import ReplySchema, clean_text
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.messages import ChatAnswer, ChatMessage, EndpointRequest
from rlhf.errors import BudgetError

Schema = TypeVar("Schema", bound=ReplySchema)
Prompts = Sequence[Sequence[ChatMessage]]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A text of the model that does not become a row, and why."""

    reason: str
    example: str = ""


class Writer:
    """Sends the requests of a method.

    Once the budget is spent, `stopped` says so, and requests that could not be sent are returned as Rejected.
    """

    def __init__(self, endpoint: Endpoint, options: AugmentOptions) -> None:
        self._endpoint, self._options = endpoint, options
        self.stopped = ""

    def write(self, prompts: Prompts, schemas: Iterable[type[ReplySchema] | None] = repeat(None)) -> list[Any]:
        """What each prompt asks for, sampled at the temperature of the options: an object of the schema, or a text."""
        return self._ask(prompts, schemas, self._options.temperature, self._options.top_p)

    def judge(self, prompts: Prompts, schema: type[Schema]) -> list[Schema | Rejected]:
        """An object for each prompt, at temperature 0."""
        return self._ask(prompts, repeat(schema), temperature=0.0, top_p=1.0)

    def _ask(
        self, prompts: Prompts, schemas: Iterable[type[ReplySchema] | None], temperature: float, top_p: float
    ) -> list[Any]:
        options, asked, found = self._options, list(zip(prompts, schemas, strict=False)), list[Any]()
        formats = [None if schema is None else schema.response_format(options.structured) for _, schema in asked]
        requests = [
            EndpointRequest(prompt, temperature, top_p, options.max_tokens, response_format=wanted)
            for (prompt, _), wanted in zip(asked, formats, strict=True)
        ]
        try:
            for answer, (_, schema) in zip(self._endpoint.complete_all(requests), asked, strict=True):
                read = clean_text if schema is None else schema.read
                found.append(_rejected(answer) or read(answer.text) or Rejected("unreadable answer", answer.text))
        except BudgetError as error:
            self.stopped = error.problem
        return found + [Rejected("over budget")] * (len(requests) - len(found))


def _rejected(answer: ChatAnswer) -> Rejected | None:
    if answer.refused:
        return Rejected("refused", answer.text)
    if answer.finish_reason == "length":
        return Rejected("cut at max_tokens", answer.text)
    return None if answer.text.strip() else Rejected("empty answer")
