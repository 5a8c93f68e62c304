"""Asking a language model for objects and texts by the list; what cannot be used comes back as a Drop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rlhf.curate.augment.prompts import Form, clean_text
from rlhf.curate.augment.settings import AugmentSettings
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.messages import ChatAnswer, ChatMessage, EndpointRequest
from rlhf.errors import BudgetError

Read = TypeVar("Read")
Prompts = Sequence[Sequence[ChatMessage]]


@dataclass(frozen=True, slots=True)
class Drop:
    """Something a model wrote that does not become a row, and why."""

    reason: str
    example: str = ""


class Writer:
    """Asks the questions of a method.

    `stopped` says why nothing more can be asked, once the budget is spent; what could not be asked is a Drop.
    """

    def __init__(self, endpoint: Endpoint, settings: AugmentSettings) -> None:
        self._endpoint, self._settings = endpoint, settings
        self.stopped = ""

    def write(self, prompts: Prompts, forms: Sequence[Form]) -> list[dict[str, Any] | Drop]:
        """An object for each prompt, of the form at its place, drawn at the settings' temperature."""
        requests = [self._request(prompt, form) for prompt, form in zip(prompts, forms, strict=True)]
        return self._ask(requests, [form.read for form in forms])

    def judge(self, prompts: Prompts, form: Form) -> list[dict[str, Any] | Drop]:
        """An object for each prompt, at temperature 0."""
        requests = [self._request(prompt, form, temperature=0.0, top_p=1.0) for prompt in prompts]
        return self._ask(requests, [form.read] * len(requests))

    def reply(self, prompts: Prompts) -> list[str | Drop]:
        """The plain answer to each prompt."""
        requests = [self._request(prompt, None) for prompt in prompts]
        return self._ask(requests, [clean_text] * len(requests))

    def _request(
        self,
        prompt: Sequence[ChatMessage],
        form: Form | None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> EndpointRequest:
        settings = self._settings
        return EndpointRequest(
            prompt,
            settings.temperature if temperature is None else temperature,
            settings.top_p if top_p is None else top_p,
            settings.max_tokens,
            response_format=None if form is None else form.response_format(settings.structured),
        )

    def _ask(
        self, requests: Sequence[EndpointRequest], readers: Sequence[Callable[[str], Read | None]]
    ) -> list[Read | Drop]:
        found: list[Read | Drop] = []
        try:
            for answer, read in zip(self._endpoint.complete_all(requests), readers, strict=True):
                found.append(_fault(answer) or read(answer.text) or Drop("unreadable answer", answer.text))
        except BudgetError as error:
            self.stopped = error.problem
        return found + [Drop("over budget")] * (len(requests) - len(found))


def _fault(answer: ChatAnswer) -> Drop | None:
    if answer.refused:
        return Drop("refused", answer.text)
    if answer.finish_reason == "length":
        return Drop("cut at max_tokens", answer.text)
    return None if answer.text.strip() else Drop("empty answer")
