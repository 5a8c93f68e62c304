"""Replies in the shape of OpenAI's API, whole or in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlhf.serve.chat.batching import DrawnToken, TextDelta
from rlhf.serve.chat.models import ServedModel

LEAST_LOGPROB = -9999.0  # JSON has no minus infinity
Json = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Reply:
    """The reply to one request while it is generated; the subclasses are the two endpoints' formats.

    Args:
        with_logprobs: whether log-probabilities were requested.
        include_usage: whether a stream ends with the usage.
    """

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    model: ServedModel
    num_choices: int
    prompt_tokens: int
    with_logprobs: bool
    include_usage: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    _counts: dict[int, int] = field(default_factory=dict)
    _deltas: list[TextDelta] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = f"{self.prefix}-{secrets.token_hex(16)}"

    def opening(self, index: int) -> Json | None:
        """The choice of a chunk before an answer's first text; None for no such chunk."""
        raise NotImplementedError

    def chunk_choice(self, delta: TextDelta, logprobs: Json | None) -> Json:
        """The choice of a chunk."""
        raise NotImplementedError

    def choice(self, index: int, text: str, finish: str | None, logprobs: Json | None) -> Json:
        """A whole answer."""
        raise NotImplementedError

    def logprobs(self, tokens: Sequence[DrawnToken], index: int) -> Json:
        """The log-probabilities of an answer's tokens."""
        raise NotImplementedError

    @property
    def completion_tokens(self) -> int:
        """Tokens sampled so far."""
        return sum(self._counts.values())

    def add(self, delta: TextDelta) -> None:
        """Adds a delta to a reply that is sent whole."""
        self._counts[delta.index] = delta.num_tokens
        self._deltas.append(delta)

    def whole(self) -> Json:
        """The reply, when every answer has ended."""
        choices = []
        for index in range(self.num_choices):
            deltas = [delta for delta in self._deltas if delta.index == index]
            tokens = [token for delta in deltas for token in delta.tokens]
            text = "".join(delta.text for delta in deltas)
            choices.append(self.choice(index, text, deltas[-1].finish, self._logprobs(tokens, index)))
        return self._envelope(self.whole_object, choices) | {"usage": self.usage()}

    def chunks(self, delta: TextDelta) -> list[Json]:
        """What a stream sends for a delta."""
        opening = None if delta.index in self._counts else self.opening(delta.index)
        self._counts[delta.index] = delta.num_tokens
        choices = [] if opening is None else [opening]
        choices.append(self.chunk_choice(delta, self._logprobs(delta.tokens, delta.index)))
        usage: Json = {"usage": None} if self.include_usage else {}
        return [self._envelope(self.chunk_object, [choice]) | usage for choice in choices]

    def last_chunk(self) -> Json:
        """The usage, after all choices."""
        return self._envelope(self.chunk_object, []) | {"usage": self.usage()}

    def usage(self) -> Json:
        """Tokens of the prompts and of the answers."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _logprobs(self, tokens: Sequence[DrawnToken], index: int) -> Json | None:
        return self.logprobs(tokens, index) if self.with_logprobs else None

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model.name, "choices": choices}


class ChatReply(Reply):
    """The reply of `/v1/chat/completions`."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self, index: int) -> Json:
        """The role, before the text."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def chunk_choice(self, delta: TextDelta, logprobs: Json | None) -> Json:
        """New text as a delta of the message."""
        content = {"content": delta.text} if delta.text else {}
        return {"index": delta.index, "delta": content, "logprobs": logprobs, "finish_reason": delta.finish}

    def choice(self, index: int, text: str, finish: str | None, logprobs: Json | None) -> Json:
        """The answer as a message."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}

    def logprobs(self, tokens: Sequence[DrawnToken], index: int) -> Json:
        """A list of tokens, each with its bytes and the likeliest alternatives."""
        content = [
            self._entry(token.id, token.top_logprobs.logprob)
            | {"top_logprobs": [self._entry(*likely) for likely in token.top_logprobs.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> Json:
        texts = self.model.token_texts
        logprob = max(logprob, LEAST_LOGPROB)
        return {"token": texts.text_of(token), "logprob": logprob, "bytes": list(texts.bytes_of(token))}


@dataclass(slots=True, kw_only=True)
class CompletionReply(Reply):
    """The reply of `/v1/completions`.

    Args:
        prompt_characters: of each choice's prompt; the offsets of the tokens continue from there.
    """

    prefix: ClassVar[str] = "cmpl"
    whole_object: ClassVar[str] = "text_completion"
    chunk_object: ClassVar[str] = "text_completion"
    prompt_characters: Sequence[int]

    def opening(self, index: int) -> None:
        """A completion has no chunk before its text."""

    def chunk_choice(self, delta: TextDelta, logprobs: Json | None) -> Json:
        """New text."""
        return self.choice(delta.index, delta.text, delta.finish, logprobs)

    def choice(self, index: int, text: str, finish: str | None, logprobs: Json | None) -> Json:
        """An answer, or a part of one."""
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}

    def logprobs(self, tokens: Sequence[DrawnToken], index: int) -> Json:
        r"""Four lists; a token that is no whole character is named bytes:\x.."""
        start = self.prompt_characters[index]
        return {
            "tokens": [self._name(token.id) for token in tokens],
            "token_logprobs": [max(token.top_logprobs.logprob, LEAST_LOGPROB) for token in tokens],
            "top_logprobs": [self._likeliest(token) for token in tokens],
            "text_offset": [start + token.offset for token in tokens],
        }

    def _likeliest(self, token: DrawnToken) -> dict[str, float]:
        """The likeliest tokens and the sampled one."""
        pairs = [*token.top_logprobs.top, (token.id, token.top_logprobs.logprob)]
        return {self._name(each): max(logprob, LEAST_LOGPROB) for each, logprob in pairs}

    def _name(self, token: int) -> str:
        content = self.model.token_texts.bytes_of(token)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
