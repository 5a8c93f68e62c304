"""Answers in the words of OpenAI's API, whole or in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlhf.rollout.decoding import TopLogprobs
from rlhf.serve.chat.batching import DrawnToken, TextDelta
from rlhf.serve.chat.models import ServedModel
from rlhf.serve.chat.token_text import TokenTexts

LEAST_LOGPROB = -9999.0  # JSON has no minus infinity
Json = dict[str, Any]


class Style(Protocol):
    """What tells one endpoint's replies from the other's."""

    prefix: str
    whole: str
    chunk: str

    def opening(self, index: int) -> Json | None: ...
    def delta(self, piece: TextDelta, logprobs: Json | None) -> Json: ...
    def choice(self, index: int, text: str, finish: str | None, logprobs: Json | None) -> Json: ...
    def logprobs(self, texts: TokenTexts, tokens: Sequence[DrawnToken], index: int) -> Json: ...


class ChatStyle:
    """`/v1/chat/completions`."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self, index: int) -> Json | None:
        """The chunk before an answer's first."""
        return self._delta(index, {"role": "assistant", "content": "", "refusal": None}, None, None)

    def delta(self, piece: TextDelta, logprobs: Json | None) -> Json:
        """A chunk's choice."""
        return self._delta(piece.index, {"content": piece.text} if piece.text else {}, logprobs, piece.finish)

    def _delta(self, index: int, delta: Json, logprobs: Json | None, finish: str | None) -> Json:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def choice(self, index: int, text: str, finish: str | None, logprobs: Json | None) -> Json:
        """A whole answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}

    def logprobs(self, texts: TokenTexts, tokens: Sequence[DrawnToken], index: int) -> Json:
        """A list of tokens, each with its bytes and the likeliest at its place."""

        def entry(token: int, logprob: float) -> Json:
            content = texts.bytes_of(token)
            return {
                "token": texts.text_of(token),
                "logprob": max(logprob, LEAST_LOGPROB),
                "bytes": list(content),
            }

        content = [
            entry(token.id, token.top_logprobs.logprob)
            | {"top_logprobs": [entry(*likely) for likely in token.top_logprobs.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class CompletionStyle:
    """`/v1/completions`. `offsets` are the characters of each choice's prompt: offsets of tokens go on from there."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def __init__(self, offsets: Callable[[int], int]) -> None:
        self._offsets = offsets

    def opening(self, index: int) -> Json | None:
        """Nothing."""
        return None

    def delta(self, piece: TextDelta, logprobs: Json | None) -> Json:
        """A chunk's choice."""
        return self.choice(piece.index, piece.text, piece.finish, logprobs)

    def choice(self, index: int, text: str, finish: str | None, logprobs: Json | None) -> Json:
        """A whole answer, or a part of one."""
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}

    def logprobs(self, texts: TokenTexts, tokens: Sequence[DrawnToken], index: int) -> Json:
        """Four lists; a token that is no whole character is called bytes:\\x.."""
        start = self._offsets(index)
        return {
            "tokens": [_name(texts, token.id) for token in tokens],
            "token_logprobs": [max(token.top_logprobs.logprob, LEAST_LOGPROB) for token in tokens],
            "top_logprobs": [_likeliest(texts, token.id, token.top_logprobs) for token in tokens],
            "text_offset": [start + token.offset for token in tokens],
        }


def _likeliest(texts: TokenTexts, token: int, top_logprobs: TopLogprobs) -> dict[str, float]:
    """The likeliest tokens and the drawn one."""
    pairs = [*top_logprobs.top, (token, top_logprobs.logprob)]
    return {_name(texts, each): max(logprob, LEAST_LOGPROB) for each, logprob in pairs}


def _name(texts: TokenTexts, token: int) -> str:
    content = texts.bytes_of(token)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


@dataclass(slots=True)
class Reply:
    """The reply to one request while it comes together.

    Args:
        with_logprobs: whether log-probabilities were asked for.
        include_usage: whether a stream ends with the usage.
    """

    style: Style
    model: ServedModel
    num_choices: int
    prompt_tokens: int
    with_logprobs: bool
    include_usage: bool = False
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    _counts: dict[int, int] = field(default_factory=dict)
    _parts: list[TextDelta] = field(default_factory=list)
    _opened: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.id = f"{self.style.prefix}-{secrets.token_hex(16)}"

    @property
    def completion_tokens(self) -> int:
        """Tokens drawn so far."""
        return sum(self._counts.values())

    def count(self, piece: TextDelta) -> None:
        """Notes how many tokens were drawn."""
        self._counts[piece.index] = piece.num_tokens

    def keep(self, piece: TextDelta) -> None:
        """A piece of a reply that is sent whole."""
        self._parts.append(piece)

    def whole(self) -> Json:
        """The reply, when everything has come."""
        choices = []
        for index in range(self.num_choices):
            parts = [piece for piece in self._parts if piece.index == index]
            tokens = [token for piece in parts for token in piece.tokens]
            text, finish = "".join(piece.text for piece in parts), parts[-1].finish
            choices.append(self.style.choice(index, text, finish, self._logprobs(tokens, index)))
        return self._envelope(self.style.whole, choices) | {"usage": self.usage()}

    def chunks(self, piece: TextDelta) -> list[Json]:
        """What a stream sends for a piece."""
        choices = []
        if piece.index not in self._opened:
            self._opened.add(piece.index)
            opening = self.style.opening(piece.index)
            choices += [] if opening is None else [opening]
        choices.append(self.style.delta(piece, self._logprobs(piece.tokens, piece.index)))
        usage: Json = {"usage": None} if self.include_usage else {}
        return [self._envelope(self.style.chunk, [choice]) | usage for choice in choices]

    def last_chunk(self) -> Json:
        """The usage, behind all choices."""
        return self._envelope(self.style.chunk, []) | {"usage": self.usage()}

    def usage(self) -> Json:
        """Tokens read and drawn."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _logprobs(self, tokens: Sequence[DrawnToken], index: int) -> Json | None:
        return self.style.logprobs(self.model.token_texts, tokens, index) if self.with_logprobs else None

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model.name, "choices": choices}
