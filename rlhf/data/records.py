"""The three records that the stages train on, and the conversions between them.

Records are checked on construction, so no other code checks them again. Errors have no `where`: the reader, which
knows the file, line and key, adds it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rlhf.errors import DataError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)


def check_text(text: str, name: str) -> None:
    """Raises DataError when `text` is not a string, or has nothing but whitespace."""
    if not isinstance(text, str):
        raise DataError(f"{name} is {type(text).__name__}, not text", expected="a string")
    if not text.strip():
        raise DataError(f"{name} is empty", expected="text that is more than whitespace")


def check_turns(messages: Sequence[Message], last: Role) -> None:
    """Raises DataError unless user and assistant alternate up to `last`, after an optional system turn."""
    if not messages:
        raise DataError("a conversation without turns", expected=f"at least one turn, the last by {last}")
    turns = messages[1:] if messages[0].role == "system" else messages
    for index, message in enumerate(turns):
        wanted = "assistant" if index % 2 else "user"
        if message.role != wanted:
            number = index + 1 + len(messages) - len(turns)
            raise DataError(
                f"turn {number} is by {message.role} instead of {wanted}",
                expected="an optional system turn first, then alternating user and assistant turns",
                fix="join neighbouring turns of one speaker, or drop the row",
            )
    if not turns or messages[-1].role != last:
        problem = f"the conversation ends in a turn by {messages[-1].role}"
        raise DataError(problem, expected=f"a last turn by {last}")


def check_responses(responses: Sequence[str]) -> None:
    """Raises DataError unless there are two or more answers, none empty."""
    if len(responses) < 2:
        raise DataError(f"{len(responses)} answer(s) cannot be ranked", expected="two answers or more")
    for index, response in enumerate(responses):
        check_text(response, f"answer {index + 1}")


def check_ranks(ranks: Sequence[int], num_answers: int) -> None:
    """Raises DataError unless there is one integer >= 1 for each answer."""
    if len(ranks) != num_answers:
        raise DataError(f"{len(ranks)} ranks for {num_answers} answers", expected="one rank for each answer")
    for rank in ranks:
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise DataError(f"rank {rank!r}", expected="integers from 1 (best); equal ranks are ties")


def check_scores(scores: Sequence[float], num_answers: int) -> None:
    """Raises DataError unless there is one finite number for each answer."""
    if len(scores) != num_answers:
        problem = f"{len(scores)} scores for {num_answers} answers"
        raise DataError(problem, expected="one score for each answer")
    for score in scores:
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if not number or not abs(score) <= sys.float_info.max:  # also NaN, and integers beyond what a float holds
            raise DataError(f"score {score!r}", expected="finite numbers, higher is better")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    `input` is the context that KULLM and Alpaca give in addition to an instruction; a turn of the assistant with
    `learn` false is read but has no loss.
    """

    role: Role
    content: str
    input: str = ""
    learn: bool = True

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(f"role {self.role!r}", expected=f"one of {', '.join(ROLES)}")
        check_text(self.content, f"the {self.role} turn")
        if not isinstance(self.input, str):
            raise DataError(f"input is {type(self.input).__name__}, not text", expected="a string")
        if self.input and self.role != "user":
            raise DataError(f"a {self.role} turn with an input", expected="an input on user turns only")

    def as_row(self) -> dict[str, Any]:
        """The turn as data files hold it: {role, content}, with `input` and `weight` where they say something."""
        given = {"role": self.role, "content": self.content}
        return {**given, **({"input": self.input} if self.input else {}), **({} if self.learn else {"weight": 0})}


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation to imitate; it ends in the assistant's turn."""

    messages: tuple[Message, ...]
    source: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.messages[-1].content,)

    def __post_init__(self) -> None:
        check_turns(self.messages, "assistant")
        if not any(message.learn for message in self.messages if message.role == "assistant"):
            raise DataError("every answer has weight 0, so that there is nothing to learn", fix="drop the row")


@dataclass(frozen=True, slots=True)
class Ranking:
    """K >= 2 answers to one prompt; rank 1 is best, equal ranks tie. A chosen/rejected pair is K = 2.

    `scores` are the judge's scores behind the ranks, if known (higher is better).
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    ranks: tuple[int, ...]
    source: str = ""
    scores: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_turns(self.prompt, "user")
        check_responses(self.responses)
        check_ranks(self.ranks, len(self.responses))
        if self.scores is not None:
            check_scores(self.scores, len(self.responses))

    @property
    def answers(self) -> tuple[str, ...]:
        return self.responses

    @property
    def num_answers(self) -> int:
        return len(self.responses)

    @property
    def all_tied(self) -> bool:
        """Whether no answer is better than another, so that there is no pair to learn from."""
        return len(set(self.ranks)) == 1

    @property
    def best(self) -> int:
        """Index of the first of the best answers."""
        return self.ranks.index(min(self.ranks))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation to answer; it ends in a user turn. `reference` is a known good answer."""

    messages: tuple[Message, ...]
    source: str = ""
    reference: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages

    @property
    def answers(self) -> tuple[str, ...]:
        return ()

    def __post_init__(self) -> None:
        check_turns(self.messages, "user")
        if not isinstance(self.reference, str):
            raise DataError(f"reference is {type(self.reference).__name__}, not text", expected="a string")


Record = Demonstration | Ranking | Prompt


def demonstration_of(ranking: Ranking) -> Demonstration:
    """The prompt with the (first) best answer."""
    answer = Message("assistant", ranking.responses[ranking.best])
    return Demonstration((*ranking.prompt, answer), source=ranking.source)


def prompt_of(record: Demonstration | Ranking) -> Prompt:
    """The prompt of a record; its reference is the final answer, or the best one of a ranking."""
    best = record.best if isinstance(record, Ranking) else 0
    return Prompt(record.prompt, record.source, record.answers[best])
