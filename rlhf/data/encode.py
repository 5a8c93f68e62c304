"""Converts records to token ids: one code path for every stage, for serving and for evaluation.

Each answer is tokenised separately from the text before it, so the ids of a prompt are the same whether an answer
follows (training) or is generated (rollout). A row that is too long first loses its oldest turns, then the left of
its prompt (never the BOS before it); only then is its answer truncated, and a truncated answer has no EOS. All of it is
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from rlhf.data.records import Demonstration, MarkedAnswers, Message, Prompt, Ranking
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import DataError

Ids = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Rendered = TypeVar("Rendered")
MIN_PROMPT_SHARE = 0.25  # of max_length: below this length the answer is cut rather than the prompt


@dataclass(slots=True)
class EncodeReport:
    """Counts of everything that encoding dropped or cut."""

    num_rows: int = 0
    num_tokens: int = 0
    num_answer_tokens: int = 0
    rows_with_dropped_turns: int = 0
    rows_with_cut_prompt: int = 0
    rows_with_cut_answer: int = 0
    special_texts_removed: int = 0


@dataclass(frozen=True, slots=True)
class EncodedSequence:
    """A conversation: ids [T]; answer_mask [T], True = token of an answer to learn, or its EOS.

    unlearnt [T], or None for none: True = token of an answer of weight 0, which has no loss, not even that of prompts.
    """

    ids: Ids
    answer_mask: Mask
    source: str = ""
    unlearnt: Mask | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class EncodedRanking:
    """A prompt [P] and K answers, each with its EOS unless it was cut; rank 1 is best."""

    prompt: Ids
    answers: tuple[Ids, ...]
    ranks: tuple[int, ...]
    source: str = ""
    scores: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass(frozen=True, slots=True)
class EncodedMarked:
    """A prompt [P] and K answers, each with its EOS unless it was cut, and whether each is good."""

    prompt: Ids
    answers: tuple[Ids, ...]
    good: tuple[bool, ...]
    source: str = ""

    @property
    def ranks(self) -> tuple[int, ...]:
        """1 for a good answer, 2 for a bad one."""
        return tuple(1 if good else 2 for good in self.good)

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt [P] that ends where an answer begins; `row` identifies it in random streams."""

    ids: Ids
    row: int
    messages: tuple[Message, ...]
    source: str = ""
    reference: str = ""

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True)
class Encoder:
    """Converts records to ids within a length limit, and counts what it cuts.

    `train_on` "last" trains on the last answer of a conversation only: the earlier ones are masked like user turns.
    `learn_calls`: whether turns that call tools are answers to learn too.
    """

    tokenizer: ChatTokenizer
    max_length: int
    train_on: Literal["all", "last"] = "all"
    learn_calls: bool = False
    report: EncodeReport = field(default_factory=EncodeReport)

    def demonstrations(self, records: Sequence[Demonstration]) -> list[EncodedSequence]:
        return [self._demonstration(record) for record in records]

    def rankings(self, records: Sequence[Ranking]) -> list[EncodedRanking]:
        return [self._ranking(record) for record in records]

    def marked(self, records: Sequence[MarkedAnswers]) -> list[EncodedMarked]:
        return [EncodedMarked(*self.answered(each.prompt, each.responses), each.good, each.source) for each in records]

    def prompts(self, records: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Prompts, the opening of an answer included, cut on the left to `max_length`.

        Row numbers continue from call to call, so no two prompts of one encoder share a random stream.
        """
        return [self._prompt(record, self.report.num_rows) for record in records]

    def _demonstration(self, record: Demonstration) -> EncodedSequence:
        messages = self._cleaned(record.messages)
        turns, messages = self._fitted(messages, self._turn_ids, lambda turns: len(_joined(turns)[0]))
        said = [
            message.learn
            for message in messages
            if message.role == "assistant" and (self.learn_calls or not message.calls)
        ]
        hidden = len(said) - sum(answer for _, answer in turns)  # the template writes the first ones as prompt
        learn = said[hidden:]
        if self.train_on == "last" and not learn[-1]:
            raise DataError("the last answer has weight 0, and data.train_on=last", fix="drop the row")
        if self.train_on == "all" and any(said[:hidden]):
            raise DataError(
                "the chat template writes earlier answers otherwise than it opens them, so only the last can be learnt",
                fix="set data.train_on=last" + (", or data.learn_tool_calls=false" if self.learn_calls else ""),
            )
        ids, answers = _joined(turns)
        kept = self._kept(len(ids), last_answer=len(turns[-1][0]))
        unlearnt = _spread(turns, [not each for each in learn])
        mask = answers & ~unlearnt
        if self.train_on == "last":
            mask[: len(ids) - len(turns[-1][0])] = False
        ids, mask = ids[kept], mask[kept]
        if not mask.any():
            raise DataError("only answers of weight 0 are left of a row that is too long", fix="raise data.max_length")
        self.report.num_rows += 1
        self.report.num_tokens += len(ids)
        self.report.num_answer_tokens += int(mask.sum())
        return EncodedSequence(ids, mask, record.source, None if all(learn) else unlearnt[kept])

    def answered(self, prompt: tuple[Message, ...], responses: Sequence[str]) -> tuple[Ids, tuple[Ids, ...]]:
        """A prompt and its answers, each with EOS unless it was cut; of a row that is too long, the same part of the
        prompt for all."""
        cleaned = [self._clean(Message("assistant", text)) for text in responses]
        turns, _ = self._fitted(
            self._cleaned(prompt),
            lambda prompt: [self._turn_ids((*prompt, response)) for response in cleaned],
            lambda turns: max(len(_joined(each)[0]) for each in turns),
        )
        before, _ = _joined(turns[0][:-1])
        answers = [turn[-1][0] for turn in turns]
        room = max(self.max_length - max(map(len, answers)), int(self.max_length * MIN_PROMPT_SHARE))
        cut_prompt = self._cut_left(before, room)
        cut_answers = tuple(answer[: self.max_length - len(cut_prompt)] for answer in answers)
        self.report.rows_with_cut_prompt += len(cut_prompt) < len(before)
        self.report.rows_with_cut_answer += sum(map(len, cut_answers)) < sum(map(len, answers))
        self.report.num_rows += 1
        self.report.num_tokens += len(cut_prompt) + sum(map(len, cut_answers))
        self.report.num_answer_tokens += sum(map(len, cut_answers))
        return cut_prompt, cut_answers

    def _ranking(self, record: Ranking) -> EncodedRanking:
        prompt, answers = self.answered(record.prompt, record.responses)
        return EncodedRanking(prompt, answers, record.ranks, record.source, record.scores)

    def _prompt(self, record: Prompt, row: int) -> EncodedPrompt:
        ids, _ = self._fitted(self._cleaned(record.messages), self._open_ids, len)
        self.report.num_rows += 1
        self.report.rows_with_cut_prompt += len(ids) > self.max_length
        ids = self._cut_left(ids, self.max_length)
        self.report.num_tokens += len(ids)
        return EncodedPrompt(ids, row, record.messages, record.source, record.reference)

    def _fitted(
        self,
        messages: tuple[Message, ...],
        render: Callable[[tuple[Message, ...]], Rendered],
        length: Callable[[Rendered], int],
    ) -> tuple[Rendered, tuple[Message, ...]]:
        """`messages`, rendered without their oldest exchanges as long as they are too long and have several; and what
        is left of them."""
        rendered, dropped = render(messages), False
        head = messages[:1] if messages[0].role == "system" else ()
        while length(rendered) > self.max_length and sum(message.role == "user" for message in messages) > 1:
            rest = messages[len(head) :]
            second = next(place for place, turn in enumerate(rest) if place and turn.role == "user")
            first = replace(rest[second], tools=rest[second].tools or rest[0].tools)
            messages = (*head, first, *rest[second + 1 :])
            rendered, dropped = render(messages), True
        self.report.rows_with_dropped_turns += dropped
        return rendered, messages

    def _open_ids(self, messages: tuple[Message, ...]) -> Ids:
        """The ids of a prompt up to where an answer begins, each piece tokenised separately as in training."""
        pieces = self.tokenizer.pieces(messages, open_answer=True)
        parts = self.tokenizer.piece_ids([piece.text for piece in pieces])
        return np.asarray([token for part in parts for token in part], dtype=np.int32)

    def _turn_ids(self, messages: tuple[Message, ...]) -> list[tuple[Ids, bool]]:
        """The ids of each rendered piece up to the last answer, and whether the piece is an answer."""
        pieces = self.tokenizer.pieces(messages, calls=self.learn_calls)
        if not any(piece.answer for piece in pieces):
            problem = "the assistant only calls tools, and says nothing to learn"
            raise DataError(problem, fix="set data.learn_tool_calls=true, or drop the row")
        while not pieces[-1].answer:  # text of the template after the last answer is not trained on
            pieces.pop()
        ids = self.tokenizer.piece_ids([piece.text for piece in pieces])
        turns = [
            (np.asarray(piece_ids, dtype=np.int32), piece.answer) for piece_ids, piece in zip(ids, pieces, strict=True)
        ]
        if turns[-1][0][-1] != self.tokenizer.eos_id:
            raise DataError("an answer does not end in EOS after tokenisation", fix="check data.template")
        return turns

    def _kept(self, length: int, *, last_answer: int) -> Ids:
        """The places of what fits, [T]: the left of the prompt goes, after the start of the sequence, then, if that is
        not enough, the right of the answer; counted."""
        if length <= self.max_length:
            return np.arange(length, dtype=np.int32)
        prompt = length - last_answer
        room = max(self.max_length - last_answer, min(prompt, int(self.max_length * MIN_PROMPT_SHARE)))
        self.report.rows_with_cut_prompt += room < prompt
        self.report.rows_with_cut_answer += room + last_answer > self.max_length
        before = self._cut_left(np.arange(prompt, dtype=np.int32), room)
        return np.concatenate([before, np.arange(prompt, length, dtype=np.int32)[: self.max_length - room]])

    def _cut_left(self, prompt: Ids, room: int) -> Ids:
        """The last `room` tokens of a prompt [P], of which the first are those that every sequence starts with."""
        if len(prompt) <= room:
            return prompt
        start = min(len(self.tokenizer.start), room - 1)
        return np.concatenate([prompt[:start], prompt[len(prompt) - room + start :]])

    def _cleaned(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        return tuple(self._clean(message) for message in messages)

    def _clean(self, message: Message) -> Message:
        """Text without special-token strings, each of which would become a control token."""
        content, context = self.without_special(message.content), self.without_special(message.input)
        if not content and not message.calls:
            raise DataError(f"the {message.role} turn has nothing but special-token text", fix="drop the row")
        calls, tools = self.without_special(message.calls), self.without_special(message.tools)
        return replace(message, content=content, input=context, calls=calls, tools=tools)

    def without_special(self, text: str) -> str:
        """The text without that of special tokens, which is counted in `report`."""
        cleaned, removed = text, 0
        while present := [special for special in self.tokenizer.special_texts if special in cleaned]:
            for special in present:  # a removal may join the halves of another
                removed += cleaned.count(special)
                cleaned = cleaned.replace(special, "")
        self.report.special_texts_removed += removed
        return cleaned.strip() if removed else text


def _joined(turns: Sequence[tuple[Ids, bool]]) -> tuple[Ids, Mask]:
    """All turns as one sequence, with a mask that is True on answers."""
    ids = np.concatenate([ids for ids, _ in turns])
    mask = np.concatenate([np.full(len(ids), answer) for ids, answer in turns])
    return ids, mask


def _spread(turns: Sequence[tuple[Ids, bool]], values: Sequence[bool]) -> Mask:
    """[T]: the value of each answer at all its tokens, False elsewhere."""
    each = iter(values)
    return np.concatenate([np.full(len(ids), answer and next(each)) for ids, answer in turns])
