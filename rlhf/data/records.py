"""The three records every stage trains on, and the conversions between them that lose nothing invented.

A record is checked when it is built, so code that holds one never checks it again. Errors carry no `where`:
only the reader knows the file, line and key, and adds them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rlhf.errors import DataError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)


def check_text(text: str, name: str) -> None:
    """Raises DataError when `text` is not text, or nothing but whitespace."""
    if not isinstance(text, str):
        raise DataError(f"{name} is {type(text).__name__}, not text", expected="a string")
    if not text.strip():
        raise DataError(f"{name} is empty", expected="text that is more than whitespace")


def check_turns(messages: Sequence[Message], last: Role) -> None:
    """Raises DataError unless turns are an optional system, then user and assistant in turn up to `last`."""
    if not messages:
        raise DataError("a conversation without turns", expected=f"at least one turn, the last by {last}")
    turns = messages[1:] if messages[0].role == "system" else messages
    for index, message in enumerate(turns):
        wanted = "assistant" if index % 2 else "user"
        if message.role != wanted:
            number = index + 1 + len(messages) - len(turns)
            raise DataError(
                f"turn {number} is by {message.role} where {wanted} is due",
                expected="an optional system turn first, then user and assistant in turn",
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
        if isinstance(score, bool) or not isinstance(score, int | float) or not _is_finite(score):
            raise DataError(f"score {score!r}", expected="finite numbers, higher is better")


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond what a float holds
        return False


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `input` is the extra context that KULLM and Alpaca give beside an instruction."""

    role: Role
    content: str
    input: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(f"role {self.role!r}", expected=f"one of {', '.join(ROLES)}")
        check_text(self.content, f"the {self.role} turn")
        if not isinstance(self.input, str):
            raise DataError(f"input is {type(self.input).__name__}, not text", expected="a string")
        if self.input and self.role != "user":
            raise DataError(f"a {self.role} turn with an input", expected="an input on user turns only")


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation to imitate; it ends in the assistant's turn."""

    messages: tuple[Message, ...]
    source: str = ""

    def __post_init__(self) -> None:
        check_turns(self.messages, "assistant")


@dataclass(frozen=True, slots=True)
class Ranking:
    """K >= 2 answers to one prompt; rank 1 is best, equal ranks tie. A chosen/rejected pair is K = 2.

    `scores` are the judge's numbers behind the ranks, where they are known (higher is better).
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
    def num_answers(self) -> int:
        """K, the number of ranked answers."""
        return len(self.responses)

    @property
    def all_tied(self) -> bool:
        """Whether no answer is better than another, so that no pair can be learnt from."""
        return len(set(self.ranks)) == 1

    @property
    def best(self) -> int:
        """Index of the first of the best answers."""
        return self.ranks.index(min(self.ranks))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation to be answered; it ends in the user's turn. `reference` is a known good answer."""

    messages: tuple[Message, ...]
    source: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        check_turns(self.messages, "user")
        if not isinstance(self.reference, str):
            raise DataError(f"reference is {type(self.reference).__name__}, not text", expected="a string")


def demonstration_of(ranking: Ranking) -> Demonstration:
    """The prompt with the (first) best answer."""
    answer = Message("assistant", ranking.responses[ranking.best])
    return Demonstration((*ranking.prompt, answer), source=ranking.source)


def prompt_of(record: Demonstration | Ranking) -> Prompt:
    """What was asked; the reference is the final (of a ranking: the best) answer."""
    if isinstance(record, Ranking):
        return Prompt(record.prompt, record.source, record.responses[record.best])
    return Prompt(record.messages[:-1], record.source, record.messages[-1].content)
