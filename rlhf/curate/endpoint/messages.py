"""Requests to a chat endpoint, and the answers in its replies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rlhf.curate.refusals import is_refusal

SHOWN = 200  # characters of an unreadable reply in the error
ChatMessage: TypeAlias = Mapping[str, str]
"""One turn of a request: {"role": "system" | "user" | "assistant", "content": text}."""


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """One request for an answer.

    Args:
        messages: the turns so far; the last is the user's.
        max_tokens: longest answer; None leaves it to the service (a cost limit needs a number).
        logprobs: ask for the log-probability of each token, with `top_logprobs` alternatives.
        response_format: structured output, e.g. `json_schema_format("judgement", schema)`.
        sample: tells repeated draws of one request apart; it is part of the cache key, but is not sent.
    """

    messages: Sequence[ChatMessage]
    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int | None = 1024
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
            "logprobs": self.logprobs or None,
            "top_logprobs": self.top_logprobs if self.logprobs else None,
            "response_format": self.response_format,
        }
        return body | {key: value for key, value in optional.items() if value is not None}

    def key(self, url: str, model: str) -> str:
        """SHA-256 of everything that decides an answer, the sample's number included."""
        value = {"url": url.rstrip("/"), "body": self.body(model), "sample": self.sample}
        return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer, its log-probability in nats, and the likeliest tokens at its position, if asked for."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The answer to a request.

    finish_reason: `stop`, `length` (cut at `max_tokens`), `content_filter`, or another reason of the service.
    refused: whether the model or the service declined to answer.
    prompt_tokens, completion_tokens: as the service counts them, 0 where it does not.
    logprobs: empty unless asked for.
    cached: whether the answer was not paid for again.
    """

    text: str
    finish_reason: str
    refused: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    cached: bool = False


def json_schema_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The `response_format` that asks for JSON of this schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": dict(schema)}}


def answer_of(reply: str) -> ChatAnswer:
    """The answer in the body of a reply. Raises ValueError, with its start, for anything but a chat completion."""
    try:
        value = json.loads(reply)
        choice, usage = value["choices"][0], value.get("usage") or {}
        message, reason = choice["message"], choice.get("finish_reason") or "stop"
        text = message.get("content") or ""
        return ChatAnswer(
            text,
            reason,
            is_refusal(text) or bool(message.get("refusal")) or reason == "content_filter",
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
            tuple(_token_in_reply(token) for token in (choice.get("logprobs") or {}).get("content") or ()),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(repr(reply[:SHOWN])) from None


def _token_in_reply(value: Mapping[str, Any]) -> TokenLogprob:
    top = tuple((entry["token"], float(entry["logprob"])) for entry in value.get("top_logprobs") or ())
    return TokenLogprob(value["token"], float(value["logprob"]), top)
