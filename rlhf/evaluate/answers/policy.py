"""Answers drawn from a policy, and log-probabilities under it, in this process on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rlhf.config.sections import SamplingSection
from rlhf.data.encode import EncodedPrompt, EncodedSequence, Ids
from rlhf.data.packing import pack_sequences
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.models.loading import PackedCausalLM
from rlhf.models.packed_forward import forward_packed, in_micro_batches
from rlhf.ops.logprobs import token_logprobs
from rlhf.rollout.transformers import TransformersRollout


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """One answer to one prompt; ids with EOS when `finished`."""

    prompt: EncodedPrompt
    ids: Ids
    text: str
    finished: bool


def answer_prompts(
    policy: PackedCausalLM,
    tokenizer: ChatTokenizer,
    prompts: Sequence[EncodedPrompt],
    sampling: SamplingSection,
    *,
    seed: int,
    num_samples: int = 1,
) -> list[GeneratedAnswer]:
    """`num_samples` answers per prompt, each drawn from the random stream (seed, row, sample)."""
    repeated = [(prompt, sample) for prompt in prompts for sample in range(num_samples)]
    rollout = TransformersRollout(policy.model.eval(), tokenizer.eos_id, tokenizer.text)
    drawn = rollout.generate(
        [prompt.ids for prompt, _ in repeated], [(seed, prompt.row, sample) for prompt, sample in repeated], sampling
    )
    return [
        GeneratedAnswer(prompt, ids, tokenizer.text(ids.tolist()), finished)
        for (prompt, _), ids, finished in zip(repeated, drawn.tokens, drawn.finished, strict=True)
    ]


def answer_logprobs(policy: PackedCausalLM, pairs: Sequence[tuple[Ids, Ids]], *, temperature: float) -> list[float]:
    """log p(answer | prompt) in nats, summed over the answer, of each (prompt, answer)."""
    device, sequences = next(policy.parameters()).device, []
    for prompt, answer in pairs:
        ids = np.concatenate([prompt, answer])
        sequences.append(EncodedSequence(ids, np.arange(len(ids)) >= len(prompt)))

    def read(items: list[int]) -> list[float]:
        row = pack_sequences([sequences[item] for item in items]).to(device)
        values = token_logprobs(forward_packed(policy, row), row.labels, temperature=temperature)
        return torch.zeros(len(items), device=device).index_add(0, row.items, values).tolist()

    return in_micro_batches([len(each) for each in sequences], read)
