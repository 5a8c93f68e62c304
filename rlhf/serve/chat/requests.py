"""Requests in the shape of OpenAI's API. What is not supported is refused, never ignored in silence."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from rlhf.data.records import Message, Role
from rlhf.errors import DataError
from rlhf.rollout.sequences import Decoding
from rlhf.serve.errors import ApiError, RequestBody

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
MAX_CHOICES = 128
MAX_STOPS = 4
StopText = Annotated[str, Field(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=1)]
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class StreamOptions(RequestBody):
    """`include_obfuscation` is accepted and has no effect."""

    include_usage: bool = False
    include_obfuscation: bool = True


class SamplingRequest(RequestBody):
    """What both endpoints take. `top_k` is an addition; the keys after `logit_bias` are accepted without effect."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = 1
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    seed: int | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    presence_penalty: Literal[0] | None = 0
    frequency_penalty: Literal[0] | None = 0
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @field_validator("presence_penalty", "frequency_penalty", mode="before")
    @classmethod
    def _plain_zero(cls, value: Any) -> Any:
        return 0 if value == 0 else value  # 0.0 is no literal 0 to pydantic

    @property
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def decoding(self) -> Decoding:
        temperature = 1.0 if self.temperature is None else self.temperature
        return Decoding(temperature, self.top_k, 1.0 if self.top_p is None else self.top_p)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def stream_seed(self) -> int:
        """The first part of the random streams' names; drawn where none was given."""
        return secrets.randbits(63) if self.seed is None else self.seed % 2**64


class TextPart(RequestBody):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A turn. Keys that services add to their answers (`refusal`, `annotations`) may come back; they have no effect."""

    role: str
    content: str | list[TextPart] | None = None

    def message(self) -> Message:
        """As the stages read it. Raises DataError for what they cannot."""
        if self.role not in ROLES:
            raise DataError(f"role {self.role[:40]!r}", expected=f"one of {', '.join(ROLES)}")
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return Message(ROLES[self.role], text)


class ChatRequest(SamplingRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    modalities: list[Literal["text"]] | None = None

    @model_validator(mode="after")
    def _logprobs_first(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        return self

    @property
    def num_likeliest(self) -> int | None:
        """Alternatives to report for each token; None for no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def turns(self) -> list[Message]:
        """The conversation. Raises ApiError naming the turn that cannot be read."""
        found = []
        for number, message in enumerate(self.messages):
            with errors_name(f"messages[{number}]"):
                found.append(message.message())
        return found


class CompletionRequest(SamplingRequest):
    """`POST /v1/completions`."""

    prompt: str | list[int] | list[str] | list[list[int]] | None = None
    max_tokens: Count | None = DEFAULT_COMPLETION_TOKENS
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = False
    best_of: int | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _best_is_all(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != self.num_choices:
            raise ValueError("best_of other than n is not supported")
        return self

    def prompts(self) -> Sequence[str | Sequence[int]]:
        """Every prompt, as text or ids."""
        if self.prompt is None or isinstance(self.prompt, str):
            return [self.prompt or ""]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return self.prompt  # type: ignore[return-value]


@contextmanager
def errors_name(param: str) -> Iterator[None]:
    """Raises a DataError of the block as an ApiError that names the parameter."""
    try:
        yield
    except DataError as error:
        expected = f"; expected {error.expected}" if error.expected else ""
        raise ApiError(400, f"Invalid '{param}': {error.problem}{expected}.", param=param) from None
