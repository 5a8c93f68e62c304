"""How likely a model finds the references: perplexity a token, and nats a character, which tokenizers do not change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from rlhf.curate.sample.sources import LONGEST_PROMPT
from rlhf.data.encode import EncodedSequence, Encoder
from rlhf.data.records import Demonstration, Message, Prompt
from rlhf.data.tokenizer import load_tokenizer
from rlhf.evaluate.answers.policy import answer_logprobs
from rlhf.evaluate.intervals import Figure, Floats, ratio_difference, ratio_figure
from rlhf.models.loading import PackedCausalLM, load_causal_lm

ENDS: tuple[Literal["mean", "low", "high"], ...] = ("mean", "low", "high")


class Surprise:
    """Nats, tokens and characters of each reference under one model, [P] each."""

    def __init__(self, nats: Floats, tokens: Floats, characters: Floats) -> None:
        self.nats, self.tokens, self.characters = nats, tokens, characters

    def as_dict(self) -> dict[str, Any]:
        """Perplexity a token and nats a character, with intervals by bootstrap over references."""
        a_token = ratio_figure(self.nats, self.tokens)
        return {
            "num_references": len(self.nats),
            "perplexity": {end: math.exp(a_token[end]) for end in ENDS},
            "nats_a_character": ratio_figure(self.nats, self.characters),
        }

    def minus(self, other: Surprise) -> Figure:
        """Nats a character, this minus the other."""
        return ratio_difference((other.nats, self.nats), (other.characters, self.characters))


def surprise(folder: str, prompts: Sequence[Prompt], *, dtype: str, device: Any) -> Surprise | None:
    """The surprise of a model at the references; None where no prompt has one.

    A reference is the last turn of the prompt's own conversation, rendered as in training, EOS included. Prompts that
    are too long are cut from the left.
    """
    known = [prompt for prompt in prompts if prompt.reference.strip()]
    if not known:
        return None
    tokenizer = load_tokenizer(folder)
    model: PackedCausalLM = load_causal_lm(folder, dtype=dtype)
    model.to(device)
    records = [
        Demonstration((*prompt.messages, Message("assistant", prompt.reference)), prompt.source) for prompt in known
    ]
    positions = getattr(model.model.config, "max_position_embeddings", None)
    encoder = Encoder(tokenizer, min(positions or 2 * LONGEST_PROMPT, 2 * LONGEST_PROMPT), train_on="last")
    split = [_last_answer(each) for each in encoder.demonstrations(records)]
    nats = -np.asarray(answer_logprobs(model, split, temperature=1.0), dtype=float)
    characters = np.asarray([len(prompt.reference.strip()) for prompt in known], dtype=float)
    return Surprise(nats, np.asarray([float(len(answer)) for _, answer in split]), characters)


def _last_answer(sequence: EncodedSequence) -> tuple[Any, Any]:
    start = int(np.argmax(sequence.answer_mask))
    return sequence.ids[:start], sequence.ids[start:]
