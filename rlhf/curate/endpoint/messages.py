"""What a chat endpoint is asked and what it answers, as values that a cache can keep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, TypeAlias

from rlhf.curate.refusals import is_refusal

SHOWN = 200  # characters of a reply that cannot be read, in the error
ChatMessage: TypeAlias = Mapping[str, str]
"""One turn of a request: {"role": "system" | "user" | "assistant", "content": text}."""


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """One request for `n` answers.

    Args:
        messages: the turns so far; the last is the user's.
        max_tokens: most tokens of an answer; None leaves it to the service (a cost limit needs a number).
        seed: sent along where it is not None; few services repeat themselves exactly.
        logprobs: ask for the log-probability of each token, with `top_logprobs` alternatives.
        response_format: structured output, e.g. `json_schema_format("judgement", schema)`.
        sample: tells repeated draws of the same request apart; it is not sent, but is part of the cache's key.
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
    """A token of an answer, its log-probability in nats, and the likeliest tokens at its place, if asked for."""

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
    """The answers to a request; the first one's fields can be read directly.

    Token counts are the service's, 0 where it gives none. `cached` answers cost nothing this time.
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
        """`stop`, `length` where `max_tokens` cut it, `content_filter`, or what else the service says."""
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
    def from_json(cls, text: str) -> Self:
        value = json.loads(text)
        return cls(
            tuple(_choice_of(choice) for choice in value["choices"]),
            value["prompt_tokens"],
            value["completion_tokens"],
            value["cached"],
        )


def _choice_of(value: Mapping[str, Any]) -> ChatChoice:
    logprobs = tuple(
        TokenLogprob(token["token"], token["logprob"], tuple((text, number) for text, number in token["top"]))
        for token in value["logprobs"]
    )
    return ChatChoice(value["text"], value["finish_reason"], logprobs, value["refused"])


def json_schema_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """`response_format` of a request for an answer that is JSON of this schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": dict(schema)}}


def refused_answer(reason: str) -> ChatAnswer:
    """The answer that stands for a request the service's content filter turned down."""
    return ChatAnswer((ChatChoice("", reason, refused=True),), 0, 0)


def answer_of(reply: str) -> ChatAnswer:
    """The answer in the body of a reply. ValueError, with its start, for what is not a chat completion."""
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
