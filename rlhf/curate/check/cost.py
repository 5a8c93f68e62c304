"""Tokens of rows, counted or estimated, and what training on them costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rlhf.config.flags import flag
from rlhf.data.records import Demonstration, Message, Prompt, Ranking
from rlhf.errors import DataError

if TYPE_CHECKING:
    from rlhf.data.tokenizer import ChatTokenizer

Record = Demonstration | Ranking | Prompt
_PRICE = re.compile(r"\s*[$₩]?\s*(\d+(?:\.\d+)?|\.\d+)\s*/\s*(\d*)\s*([kKmM]?)\s*")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


class RowTokens(NamedTuple):
    """Tokens of a row: trained on in one epoch (a ranking's prompt once), and of its longest sequence."""

    total: int
    longest: int


class Counter(Protocol):
    """Counts the tokens of rows."""

    @property
    def method(self) -> str:
        """How, as a report says it."""

    def rows(self, records: Sequence[Record]) -> list[RowTokens]:
        """One entry a record."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Characters divided by a constant, plus one token that ends each answer; template text not included."""

    characters_per_token: float

    def __post_init__(self) -> None:
        if not 0 < self.characters_per_token < float("inf"):
            raise DataError(f"{self.characters_per_token} characters a token", expected="a number above 0")

    @property
    def method(self) -> str:
        return f"estimate: {self.characters_per_token:g} characters a token"

    def rows(self, records: Sequence[Record]) -> list[RowTokens]:
        return [self._row(record) for record in records]

    def _row(self, record: Record) -> RowTokens:
        prompt = self._tokens(record.prompt if isinstance(record, Ranking) else record.messages)
        if not isinstance(record, Ranking):
            return RowTokens(prompt, prompt)
        answers = [self._text(response) + 1 for response in record.responses]
        return RowTokens(prompt + sum(answers), prompt + max(answers))

    def _tokens(self, messages: Sequence[Message]) -> int:
        return sum(
            self._text(message.content) + self._text(message.input) + (message.role == "assistant")
            for message in messages
        )

    def _text(self, text: str) -> int:
        return -int(-len(text) // self.characters_per_token)


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens as training sees them: the row in the tokenizer's own template."""

    tokenizer: ChatTokenizer
    name: str

    @property
    def method(self) -> str:
        return f"counted with {self.name}, template included"

    def rows(self, records: Sequence[Record]) -> list[RowTokens]:
        texts: list[str] = []
        for record in records:
            texts += self._texts(record)
        lengths = iter([len(ids) for ids in self.tokenizer.token_ids(texts)])
        found = []
        for record in records:
            first = next(lengths)
            if not isinstance(record, Ranking):
                found.append(RowTokens(first, first))
                continue
            whole = [next(lengths) for _ in record.responses]
            found.append(RowTokens(sum(whole) - first * (len(whole) - 1), max(whole)))
        return found

    def _texts(self, record: Record) -> list[str]:
        """The row's sequence; of a ranking, the prompt and each sequence."""
        if not isinstance(record, Ranking):
            return [self._text(record.messages, open_answer=isinstance(record, Prompt))]
        answered = [(*record.prompt, Message("assistant", response)) for response in record.responses]
        return [self._text(record.prompt, open_answer=True), *(self._text(turns) for turns in answered)]

    def _text(self, messages: Sequence[Message], *, open_answer: bool = False) -> str:
        return "".join(piece.text for piece in self.tokenizer.pieces(messages, open_answer=open_answer))


@dataclass(frozen=True, slots=True)
class Counting:
    """How tokens are counted: by a tokenizer, or estimated from characters."""

    tokenizer: str = flag(
        "", "model folder whose tokenizer counts tokens (default: estimate them from characters)", metavar="DIR"
    )
    template: str | None = flag(
        None, "chat template, preset or file, for a tokenizer without one, such as kullm", metavar="NAME"
    )
    characters_per_token: float = flag(
        2.0, "for the estimate; hosted models of 2023 took about 0.5 for Korean", metavar="X"
    )

    def counter(self) -> Counter:
        """Raises TokenizerError or TemplateError for what cannot be used."""
        if not self.tokenizer:
            return Estimate(self.characters_per_token)
        from rlhf.data.tokenizer import load_tokenizer  # transformers takes seconds to import

        return Counted(load_tokenizer(self.tokenizer, self.template), self.tokenizer)


@dataclass(frozen=True, slots=True)
class Costs:
    """What is known of the price and the speed; `tokens_per_second` is of all GPUs together."""

    epochs: float = flag(1.0, "passes over the file", metavar="N")
    price: str = flag("", "price of training tokens, such as 0.03/1k or 25/1m", metavar="AMOUNT/TOKENS")
    tokens_per_second: float = flag(0.0, "measured training speed of all GPUs together")
    gpus: int = flag(1, "number of GPUs")

    def __post_init__(self) -> None:
        if not 0 < self.epochs < float("inf"):
            raise DataError(f"{self.epochs:g} epochs", expected="a number above 0")
        if self.tokens_per_second < 0 or self.gpus < 1:
            raise DataError(
                f"{self.tokens_per_second:g} tokens a second on {self.gpus} GPUs", expected="numbers above 0"
            )
        price_of_token(self.price)

    def of(self, tokens: int) -> dict[str, Any]:
        """Trained tokens, and the price and hours where they can be told."""
        trained = round(tokens * self.epochs)
        found: dict[str, Any] = {"epochs": self.epochs, "trained_tokens": trained}
        if self.price:
            found |= {"price": self.price, "cost": trained * price_of_token(self.price)}
        if self.tokens_per_second:
            hours = trained / self.tokens_per_second / 3600
            found |= {"hours": hours, "gpus": self.gpus, "gpu_hours": hours * self.gpus}
        return found


def price_of_token(price: str) -> float:
    """0.03/1k -> 0.00003. Raises DataError for anything that is no price; 0 for ""."""
    if not price:
        return 0.0
    match = _PRICE.fullmatch(price)
    if match is None or int(match[2] or 1) == 0:
        raise DataError(f"price {price!r}", expected="an amount for a number of tokens, as 0.03/1k or 25/1m")
    return float(match[1]) / (int(match[2] or 1) * _UNITS[match[3].lower()])
