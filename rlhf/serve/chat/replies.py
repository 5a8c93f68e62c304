"""Replies in the shape of OpenAI's API, whole or in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlhf.serve.chat.batching import AnswerRequest, DrawnToken, TextDelta
from rlhf.serve.chat.models import ServedModel

LEAST_LOGPROB = -9999.0  # JSON has no minus infinity
Json = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Reply:
    """The reply to one request while it is generated; the subclasses are the two endpoints' formats.

    Args:
        answers: what is generated for it, one per choice.
        include_usage: whether a stream ends with the usage.
    """

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]
    opening: ClassVar[Json | None]  # what a stream sends before an answer's first text

    model: ServedModel
    answers: Sequence[AnswerRequest]
    prompt_tokens: int
    include_usage: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    _counts: dict[int, int] = field(default_factory=dict)
    _deltas: list[TextDelta] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = f"{self.prefix}-{secrets.token_hex(16)}"

    def content(self, text: str, *, whole: bool) -> Json:
        """An answer's text, or the new part of it."""
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
        for index in range(len(self.answers)):
            deltas = [delta for delta in self._deltas if delta.index == index]
            tokens = [token for delta in deltas for token in delta.tokens]
            content = self.content("".join(delta.text for delta in deltas), whole=True)
            choices.append(self._choice(index, content, tokens, deltas[-1].finish))
        return self._envelope(self.whole_object, choices) | {"usage": self.usage()}

    def chunks(self, delta: TextDelta) -> list[Json]:
        """What a stream sends for a delta."""
        choices = [self._choice(delta.index, self.content(delta.text, whole=False), delta.tokens, delta.finish)]
        if delta.index not in self._counts and self.opening is not None:
            choices.insert(0, {"index": delta.index, **self.opening, "logprobs": None, "finish_reason": None})
        self._counts[delta.index] = delta.num_tokens
        usage: Json = {"usage": None} if self.include_usage else {}
        return [self._envelope(self.chunk_object, [choice]) | usage for choice in choices]

    def last_chunk(self) -> Json:
        """The usage, after all choices."""
        return self._envelope(self.chunk_object, []) | {"usage": self.usage()}

    def usage(self) -> Json:
        """Tokens of the prompts and of the answers."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _choice(self, index: int, content: Json, tokens: Sequence[DrawnToken], finish: str | None) -> Json:
        wanted = self.answers[index].num_likeliest is not None
        logprobs = self.logprobs(tokens, index) if wanted else None
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model.name, "choices": choices}


class ChatReply(Reply):
    """The reply of `/v1/chat/completions`."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"
    opening: ClassVar[Json] = {"delta": {"role": "assistant", "content": "", "refusal": None}}

    def content(self, text: str, *, whole: bool) -> Json:
        """A message, or what is added to its text."""
        if whole:
            return {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"delta": {"content": text} if text else {}}

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
    opening: ClassVar[None] = None
    prompt_characters: Sequence[int]

    def content(self, text: str, *, whole: bool) -> Json:
        """Text, alike in a whole reply and in a stream."""
        return {"text": text}

    def logprobs(self, tokens: Sequence[DrawnToken], index: int) -> Json:
        r"""Four lists, the sampled token among the likeliest; one that is no whole character is named bytes:\x.."""
        start = self.prompt_characters[index]
        return {
            "tokens": [self._name(token.id) for token in tokens],
            "token_logprobs": [max(token.top_logprobs.logprob, LEAST_LOGPROB) for token in tokens],
            "top_logprobs": [
                {
                    self._name(each): max(logprob, LEAST_LOGPROB)
                    for each, logprob in (*token.top_logprobs.top, (token.id, token.top_logprobs.logprob))
                }
                for token in tokens
            ],
            "text_offset": [start + token.offset for token in tokens],
        }

    def _name(self, token: int) -> str:
        content = self.model.token_texts.bytes_of(token)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
