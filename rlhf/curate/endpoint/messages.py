"""Requests to a chat endpoint and its answers, as values that a cache can store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from rlhf.curate.refusals import is_refusal

SHOWN = 200  # characters of an unreadable reply in the error
ChatMessage: TypeAlias = Mapping[str, str]
"""One turn of a request: {"role": "system" | "user" | "assistant", "content": text}."""


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """One request for `n` answers.

    Args:
        messages: the turns so far; the last is the user's.
        max_tokens: longest answer; None leaves it to the service (a cost limit needs a number).
        seed: sent where it is not None; few services are exactly reproducible.
        logprobs: ask for the log-probability of each token, with `top_logprobs` alternatives.
        response_format: structured output, e.g. `json_schema_format("judgement", schema)`.
        sample: tells repeated draws of one request apart; it is part of the cache key, but is not sent.
    """

    messages: Sequence[ChatMessage]
    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int | None = 1024
    n: int = 1
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    response_format: Mapping[str, Any] | None = None
    sample: int = 0

    def body(self, model: str) -> dict[str, Any]:
        """The body of the HTTP request."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [dict(message) for message in self.messages],
            "temperature": self.temperature,
            "top_p": self.top_p,
        }
        optional = {
            "max_tokens": self.max_tokens,
            "n": self.n if self.n > 1 else None,
            "seed": self.seed,
            "logprobs": self.logprobs or None,
            "top_logprobs": self.top_logprobs if self.logprobs else None,
            "response_format": self.response_format,
        }
        return body | {key: value for key, value in optional.items() if value is not None}


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer, its log-probability in nats, and the likeliest tokens at its position, if asked for."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatChoice:
    """One of the answers to a request; `logprobs` is empty unless asked for."""

    text: str
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...] = ()
    refused: bool = False


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The answers to a request; the fields of the first are properties of this class too.

    Token counts are those of the service, 0 where it gives none. `cached` answers were not paid for again.
    """

    choices: tuple[ChatChoice, ...]
    prompt_tokens: int
    completion_tokens: int
    cached: bool = False

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def finish_reason(self) -> str:
        """`stop`, `length` (cut at `max_tokens`), `content_filter`, or another reason of the service."""
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        return self.choices[0].logprobs

    @property
    def refused(self) -> bool:
        """Whether the model or the service declined to answer."""
        return self.choices[0].refused

    def as_cached(self) -> ChatAnswer:
        return replace(self, cached=True)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ChatAnswer:
        return _ANSWER.validate_json(text)


_ANSWER = TypeAdapter(ChatAnswer)


def json_schema_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The `response_format` that asks for JSON of this schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": dict(schema)}}


def refused_answer(reason: str) -> ChatAnswer:
    """The answer in place of one that the content filter of the service refused."""
    return ChatAnswer((ChatChoice("", reason, refused=True),), 0, 0)


def answer_of(reply: str) -> ChatAnswer:
    """The answer in the body of a reply. Raises ValueError, with its start, for anything but a chat completion."""
    try:
        value = json.loads(reply)
        choices = tuple(_choice_in_reply(choice) for choice in value["choices"])
        usage = value.get("usage") or {}
        counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(repr(reply[:SHOWN])) from None
    if not choices:
        raise ValueError(repr(reply[:SHOWN]))
    return ChatAnswer(choices, *counts)


def _choice_in_reply(value: Mapping[str, Any]) -> ChatChoice:
    message, reason = value["message"], value.get("finish_reason") or "stop"
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("content is not text")
    refused = bool(message.get("refusal")) or reason == "content_filter" or is_refusal(text)
    tokens = (value.get("logprobs") or {}).get("content") or ()
    return ChatChoice(text, reason, tuple(_token_in_reply(token) for token in tokens), refused)


def _token_in_reply(value: Mapping[str, Any]) -> TokenLogprob:
    top = tuple((entry["token"], float(entry["logprob"])) for entry in value.get("top_logprobs") or ())
    return TokenLogprob(value["token"], float(value["logprob"]), top)
