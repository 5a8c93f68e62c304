"""Likelihood of the references under a model: perplexity per token, and nats per character for any tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rlhf.curate.sample.sources import LONGEST_PROMPT
from rlhf.data.encode import EncodedSequence, Encoder
from rlhf.data.records import Demonstration, Message, Prompt
from rlhf.data.tokenizer import load_tokenizer
from rlhf.evaluate.answers.policy import answer_logprobs
from rlhf.evaluate.intervals import Figure, Floats, ratio_difference, ratio_figure
from rlhf.models.loading import PackedCausalLM, load_causal_lm


@dataclass(frozen=True, slots=True)
class ReferenceLikelihood:
    """Nats, tokens and characters of each reference under one model, [P] each."""

    nats: Floats
    tokens: Floats
    characters: Floats

    def as_dict(self) -> dict[str, Any]:
        """Perplexity per token and nats per character, with intervals by bootstrap over references."""
        nats = ratio_figure(self.nats, self.tokens)
        return {
            "num_references": len(self.nats),
            "perplexity": Figure(mean=math.exp(nats["mean"]), low=math.exp(nats["low"]), high=math.exp(nats["high"])),
            "nats_per_character": ratio_figure(self.nats, self.characters),
        }

    def minus(self, other: ReferenceLikelihood) -> Figure:
        """Nats per character, this minus the other."""
        return ratio_difference((other.nats, self.nats), (other.characters, self.characters))


def reference_likelihood(
    folder: str, prompts: Sequence[Prompt], *, dtype: str, device: torch.device
) -> ReferenceLikelihood | None:
    """Likelihood of the references under a model; None where no prompt has one.

    A reference is rendered as the last turn of its prompt's conversation, as in training, EOS included. Prompts that
    are too long are cut on the left.
    """
    known = [prompt for prompt in prompts if prompt.reference.strip()]
    if not known:
        return None
    tokenizer = load_tokenizer(folder)
    model: PackedCausalLM = load_causal_lm(folder, dtype=dtype, device=device)
    model.to(device)
    records = [
        Demonstration((*prompt.messages, Message("assistant", prompt.reference)), prompt.source) for prompt in known
    ]
    positions = getattr(model.model.config, "max_position_embeddings", None)
    encoder = Encoder(tokenizer, min(positions or 2 * LONGEST_PROMPT, 2 * LONGEST_PROMPT), train_on="last")
    pairs = [_last_answer(each) for each in encoder.demonstrations(records)]
    nats = -np.asarray(answer_logprobs(model, pairs, temperature=1.0), dtype=float)
    characters = np.asarray([len(prompt.reference.strip()) for prompt in known], dtype=float)
    return ReferenceLikelihood(nats, np.asarray([float(len(answer)) for _, answer in pairs]), characters)


def _last_answer(sequence: EncodedSequence) -> tuple[Any, Any]:
    start = int(np.argmax(sequence.answer_mask))
    return sequence.ids[:start], sequence.ids[start:]
