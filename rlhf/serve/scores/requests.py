"""Requests for scores: in the shape of stage 3's reward endpoints, and in those of vLLM's `/score` and `/classify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlhf.data.records import Message
from rlhf.serve.chat.models import clean_text
from rlhf.serve.chat.requests import ChatMessage, errors_name
from rlhf.serve.errors import RequestBody

MOST = 4096  # answers in one request
Texts = Annotated[list[str], Field(min_length=1, max_length=MOST)]
Turns = Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]


class TokenRows(RequestBody):
    """The ids behind the texts, used if `tokenizer` (its fingerprint) is the reward model's: text that is encoded again
    can give other ids than a policy sampled."""

    tokenizer: str
    prompts: list[Annotated[list[int], Field(min_length=1)]]
    answers: list[Annotated[list[int], Field(min_length=1)]]


class ScoresRequest(RequestBody):
    """`POST /v1/scores`. Without `messages` a prompt is one user turn; without `finished` every answer ended in EOS."""

    prompts: Texts
    answers: Texts
    model: str | None = None
    messages: list[Turns] | None = None
    finished: list[bool] | None = None
    tokens: TokenRows | None = None

    @model_validator(mode="after")
    def _one_each(self) -> ScoresRequest:
        lists = {"prompts": self.prompts, "messages": self.messages, "finished": self.finished}
        if self.tokens is not None:
            lists |= {"tokens.prompts": self.tokens.prompts, "tokens.answers": self.tokens.answers}  # type: ignore[dict-item]
        for name, values in lists.items():
            if values is not None and len(values) != len(self.answers):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.answers)} answers")
        return self

    def conversations(self) -> list[tuple[Message, ...]]:
        """The turns before each answer. Raises: ApiError that names what cannot be read."""
        if self.messages is None:
            return [user_turn(prompt, f"prompts[{number}]") for number, prompt in enumerate(self.prompts)]
        return [as_turns(turns, f"messages[{number}]") for number, turns in enumerate(self.messages)]


class PoolingRequest(RequestBody):
    """What vLLM's pooling endpoints share. `use_activation`, true by default as there, passes scores through the
    sigmoid; false gives reward units."""

    model: str | None = None
    use_activation: bool | None = None
    user: str | None = None

    @property
    def activated(self) -> bool:
        return self.use_activation is not False


class ScoreRequest(PoolingRequest):
    """`POST /score`: prompts in `text_1`, or one for all, answers in `text_2`; vLLM's other names for them too."""

    text_1: str | Texts | None = None
    text_2: str | Texts | None = None
    queries: str | Texts | None = None
    documents: str | Texts | None = None
    data_1: str | Texts | None = None
    data_2: str | Texts | None = None

    @model_validator(mode="after")
    def _pairs(self) -> ScoreRequest:
        prompts, answers = self._given()
        if len(prompts) not in (1, len(answers)):
            raise ValueError(f"{len(prompts)} prompts for {len(answers)} answers; expected one, or one for each")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """(prompt, answer) in the order of the answers."""
        prompts, answers = self._given()
        return list(zip(prompts if len(prompts) == len(answers) else prompts * len(answers), answers, strict=True))

    def _given(self) -> tuple[list[str], list[str]]:
        for first, second in (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")):
            prompts, answers = getattr(self, first), getattr(self, second)
            if prompts is not None and answers is not None:
                return _listed(prompts), _listed(answers)
        raise ValueError("text_1 and text_2 are missing")


class ClassifyRequest(PoolingRequest):
    """`POST /classify`: texts as they are, each scored at its last token, or a conversation that ends in an answer."""

    input: str | Texts | None = None
    messages: Turns | None = None
    add_special_tokens: Literal[False] | None = None

    @model_validator(mode="after")
    def _either(self) -> ClassifyRequest:
        if (self.input is None) == (self.messages is None):
            raise ValueError("give either input or messages")
        return self

    def texts(self) -> list[str]:
        return _listed(self.input or [])


def user_turn(text: str, param: str) -> tuple[Message, ...]:
    """A prompt of one turn. Raises: ApiError that names `param` for an empty one."""
    with errors_name(param):
        return (Message("user", clean_text(text)),)


def as_turns(given: Sequence[ChatMessage], param: str) -> tuple[Message, ...]:
    """Turns as data rows have them. Raises: ApiError that names the turn that cannot be read."""
    found = []
    for number, message in enumerate(given):
        with errors_name(f"{param}[{number}]"):
            turn = message.message()
            found.append(Message(turn.role, clean_text(turn.content)))
    return tuple(found)


def _listed(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
