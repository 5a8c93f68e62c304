"""Tokens of rows, counted or estimated, and the cost of training on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from rlhf.data.records import MarkedAnswers, Message, Prompt, Ranking, Record
from rlhf.errors import DataError

if TYPE_CHECKING:
    from rlhf.data.tokenizer import ChatTokenizer

CHARACTERS_PER_TOKEN = 2.0
_PRICE = re.compile(r"\s*[$₩]?\s*(\d+(?:\.\d+)?|\.\d+)\s*/\s*(\d*)\s*([kKmM]?)\s*")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


class RowTokens(NamedTuple):
    """Tokens of a row: in total per epoch (the prompt of a ranking counts once), and of its longest sequence."""

    total: int
    longest: int


@dataclass(frozen=True, slots=True)
class EstimatedTokens:
    """Characters divided by a constant, plus one token at the end of each answer; the template is not included."""

    characters_per_token: float = CHARACTERS_PER_TOKEN
    special_texts: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 < self.characters_per_token < float("inf"):
            raise DataError(f"{self.characters_per_token} characters per token", expected="a number above 0")

    @property
    def method(self) -> str:
        return f"estimate: {self.characters_per_token:g} characters per token"

    def rows(self, records: Sequence[Record]) -> list[RowTokens]:
        """One entry per record."""
        return [self._row(record) for record in records]

    def _row(self, record: Record) -> RowTokens:
        prompt = sum(
            self._text(message.content) + self._text(message.input) + (message.role == "assistant")
            for message in record.prompt
        )
        answers = [self._text(answer) + 1 for answer in record.answers]
        return RowTokens(prompt + sum(answers), prompt + max(answers, default=0))

    def _text(self, text: str) -> int:
        return -int(-len(text) // self.characters_per_token)


@dataclass(frozen=True, slots=True)
class TokenizerTokens:
    """Tokens as in training: the row rendered by the tokenizer's chat template."""

    tokenizer: ChatTokenizer
    name: str

    @property
    def method(self) -> str:
        return f"counted with {self.name}, template included"

    @property
    def special_texts(self) -> tuple[str, ...]:
        return self.tokenizer.special_texts

    def rows(self, records: Sequence[Record]) -> list[RowTokens]:
        """One entry per record."""
        groups = [self._texts(record) for record in records]
        lengths = map(len, self.tokenizer.token_ids([text for group in groups for text in group]))
        found = []
        for group in groups:
            first, *rest = islice(lengths, len(group))
            whole = rest or [first]
            found.append(RowTokens(sum(whole) - first * (len(whole) - 1), max(whole)))
        return found

    def _texts(self, record: Record) -> list[str]:
        """The sequence of a row; for a ranking, the prompt and the sequence of each answer."""
        if not isinstance(record, Ranking | MarkedAnswers):
            return [self._text(record.messages, open_answer=isinstance(record, Prompt))]
        answered = [(*record.prompt, Message("assistant", response)) for response in record.responses]
        return [self._text(record.prompt, open_answer=True), *(self._text(turns) for turns in answered)]

    def _text(self, messages: Sequence[Message], *, open_answer: bool = False) -> str:
        return "".join(piece.text for piece in self.tokenizer.pieces(messages, open_answer=open_answer))


TokenCounter = EstimatedTokens | TokenizerTokens


def token_counter(tokenizer: str, template: str | None, characters_per_token: float) -> TokenCounter:
    """Counts with the tokenizer of a folder, or estimates where that is "". Raises TokenizerError, TemplateError."""
    if not tokenizer:
        return EstimatedTokens(characters_per_token)
    from rlhf.data.tokenizer import load_tokenizer  # transformers takes seconds to import

    return TokenizerTokens(load_tokenizer(tokenizer, template), tokenizer)


@dataclass(frozen=True, slots=True)
class Costs:
    """Price and speed of training; `tokens_per_second` is that of all GPUs together."""

    epochs: float = 1.0
    price: str = ""
    tokens_per_second: float = 0.0
    gpus: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.epochs < float("inf"):
            raise DataError(f"{self.epochs:g} epochs", expected="a number above 0")
        if self.tokens_per_second < 0 or self.gpus < 1:
            raise DataError(
                f"{self.tokens_per_second:g} tokens per second on {self.gpus} GPUs", expected="numbers above 0"
            )
        price_of_token(self.price)

    def of(self, tokens: int) -> dict[str, Any]:
        """Trained tokens, and the cost and hours where price and speed are known."""
        trained = round(tokens * self.epochs)
        found: dict[str, Any] = {"epochs": self.epochs, "trained_tokens": trained}
        if self.price:
            found |= {"price": self.price, "cost": trained * price_of_token(self.price)}
        if self.tokens_per_second:
            hours = trained / self.tokens_per_second / 3600
            found |= {"hours": hours, "gpus": self.gpus, "gpu_hours": hours * self.gpus}
        return found


def price_of_token(price: str) -> float:
    """0.03/1k -> 0.00003, "" -> 0. Raises DataError for anything else that is not a price."""
    if not price:
        return 0.0
    match = _PRICE.fullmatch(price)
    if match is None or int(match[2] or 1) == 0:
        raise DataError(f"price {price!r}", expected="an amount per number of tokens, such as 0.03/1k or 25/1m")
    return float(match[1]) / (int(match[2] or 1) * _UNITS[match[3].lower()])
