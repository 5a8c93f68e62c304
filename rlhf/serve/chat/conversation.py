"""A conversation in the terminal with one model in this process: history, commands, streamed answers."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.config.sections import SamplingSection
from rlhf.data.encode import Encoder, Ids
from rlhf.data.records import Message, Prompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import ConfigError, DataError
from rlhf.rollout.base import uniform_draws
from rlhf.rollout.decoding import Decoder
from rlhf.rollout.sequences import ActiveSequence, Decoding
from rlhf.serve.chat.models import clean_text, load_policy
from rlhf.serve.chat.text_stream import TextStream

HELP = "/system TEXT sets the instructions, /reset forgets the conversation, /quit ends; Ctrl-C stops an answer\n"


@dataclass(slots=True)
class ChatModel:
    """A model that answers one conversation at a time.

    Args:
        seed: makes answers repeatable; None draws a new one for each.
        context: limit on the tokens of prompt and answer.
    """

    model: Any
    tokenizer: ChatTokenizer
    sampling: SamplingSection
    seed: int | None
    context: int

    @classmethod
    def load(
        cls, path: str, sampling: SamplingSection, seed: int | None, *, dtype: str = "auto", template: str | None = None
    ) -> ChatModel:
        """The model of a run or a folder.

        Raises: ModelError or TokenizerError when it cannot be used; ConfigError when answers leave no room for prompts.
        """
        packed, tokenizer, context = load_policy(path, dtype, template, key="MODEL")
        if sampling.max_new_tokens >= context:
            raise ConfigError(
                f"--max-new-tokens {sampling.max_new_tokens} leaves no room for a prompt",
                expected=f"less than the model's {context} tokens",
            )
        return cls(packed.model, tokenizer, sampling, seed, context)

    def prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """The conversation encoded as in training: too long ones lose their oldest turns, then their first tokens."""
        encoder = Encoder(self.tokenizer, self.context - self.sampling.max_new_tokens)
        return encoder.prompts([Prompt(tuple(messages))])[0].ids

    def answer(self, messages: Sequence[Message], turn: int) -> Iterator[str]:
        """The answer's text as it is generated; `turn` names its random stream."""
        seed = secrets.randbits(63) if self.seed is None else self.seed % 2**64
        sampling = self.sampling
        decoding = Decoding(sampling.temperature, sampling.top_k, sampling.top_p)
        draws = uniform_draws((seed, turn), sampling.max_new_tokens)
        answer = ActiveSequence(self.prompt_ids(messages), draws, decoding)
        text = TextStream(self.tokenizer.text, sampling.stop)
        decoder = Decoder(self.model, self.tokenizer.eos_id, num_slots=1)
        decoder.admit([answer])
        while not (answer.ended or text.stopped):
            decoder.step()
            if not answer.finished:
                yield text.push(answer.tokens[-1])
        yield text.finish()


@dataclass(slots=True)
class Conversation:
    """The turns so far, and the effect of a line of input."""

    model: ChatModel
    system: str = ""
    turns: list[Message] = field(default_factory=list)

    def turn(self, line: str) -> Generator[str, None, None]:
        """The output for a line: a command's reply, or the model's answer piece by piece."""
        command, _, rest = line.partition(" ")
        if not line:
            return
        if command == "/reset":
            self.turns.clear()
            yield "(forgotten)\n"
        elif command == "/system":
            self.system = rest.strip()
            self.turns.clear()
            yield "(instructions set, conversation forgotten)\n" if self.system else "(no instructions)\n"
        elif command.startswith("/"):
            yield HELP
        else:
            yield from self._answer(line)

    def _answer(self, line: str) -> Generator[str, None, None]:
        """The answer; what was generated of it becomes part of the conversation."""
        try:
            asked = Message("user", clean_text(line))
            system = [Message("system", clean_text(self.system))] if self.system else []
        except DataError as error:
            yield f"({error.problem})\n"
            return
        parts: list[str] = []
        try:
            for piece in self.model.answer([*system, *self.turns, asked], len(self.turns) // 2):
                parts.append(piece)
                yield piece
            yield "\n"
        except KeyboardInterrupt:
            yield " (stopped)\n"
        finally:
            if text := "".join(parts).strip():
                self.turns += [asked, Message("assistant", text)]
