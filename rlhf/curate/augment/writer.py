"""Requests lists of JSON objects and texts from a language model; unusable replies are returned as Rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rlhf.curate.augment.options import AugmentOptions
from rlhf.curate.augment.prompts import ReplySchema, clean_text
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.messages import ChatAnswer, ChatMessage, EndpointRequest
from rlhf.errors import BudgetError

Read = TypeVar("Read")
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

    def write(self, prompts: Prompts, schemas: Sequence[ReplySchema]) -> list[dict[str, Any] | Rejected]:
        """An object for each prompt, by the schema at its position, sampled at the temperature of the options."""
        requests = [self._request(prompt, schema) for prompt, schema in zip(prompts, schemas, strict=True)]
        return self._ask(requests, [schema.read for schema in schemas])

    def judge(self, prompts: Prompts, schema: ReplySchema) -> list[dict[str, Any] | Rejected]:
        """An object for each prompt, at temperature 0."""
        requests = [self._request(prompt, schema, temperature=0.0, top_p=1.0) for prompt in prompts]
        return self._ask(requests, [schema.read] * len(requests))

    def reply(self, prompts: Prompts) -> list[str | Rejected]:
        """The plain answer to each prompt."""
        requests = [self._request(prompt, None) for prompt in prompts]
        return self._ask(requests, [clean_text] * len(requests))

    def _request(
        self,
        prompt: Sequence[ChatMessage],
        schema: ReplySchema | None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> EndpointRequest:
        options = self._options
        return EndpointRequest(
            prompt,
            options.temperature if temperature is None else temperature,
            options.top_p if top_p is None else top_p,
            options.max_tokens,
            response_format=None if schema is None else schema.response_format(options.structured),
        )

    def _ask(
        self, requests: Sequence[EndpointRequest], readers: Sequence[Callable[[str], Read | None]]
    ) -> list[Read | Rejected]:
        found: list[Read | Rejected] = []
        try:
            for answer, read in zip(self._endpoint.complete_all(requests), readers, strict=True):
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
