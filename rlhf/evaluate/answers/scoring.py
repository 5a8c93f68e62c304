"""What a policy says and how likely it finds what others say: the raw material of a comparison.

Runs in this process on one device; decoding settings are given, so that two models are asked alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rlhf.config.sections import SamplingSection
from rlhf.data.encode import EncodedPrompt, EncodedSequence, Ids
from rlhf.data.packing import PackedRow, pack_sequences, pack_trees, plan_micro_batches
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.evaluate.reward.test_set import Tree
from rlhf.models.loading import PackedCausalLM, PackedScalarModel
from rlhf.ops.logprobs import token_logprobs
from rlhf.rollout.transformers import TransformersRollout

MICRO_TOKENS = 4096
Value = TypeVar("Value")


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
    """`num_samples` answers a prompt, each drawn from a stream named by (seed, row, sample)."""
    asked = [(prompt, sample) for prompt in prompts for sample in range(num_samples)]
    rollout = TransformersRollout(policy.model.eval(), tokenizer.eos_id, tokenizer.text)
    drawn = rollout.generate(
        [prompt.ids for prompt, _ in asked], [(seed, prompt.row, sample) for prompt, sample in asked], sampling
    )
    return [
        GeneratedAnswer(prompt, ids, tokenizer.text(ids.tolist()), finished)
        for (prompt, _), ids, finished in zip(asked, drawn.tokens, drawn.finished, strict=True)
    ]


def answer_logprobs(policy: PackedCausalLM, pairs: Sequence[tuple[Ids, Ids]], *, temperature: float) -> list[float]:
    """log p(answer | prompt) in nats, summed over the answer, of each (prompt, answer)."""
    sequences = []
    for prompt, answer in pairs:
        ids = np.concatenate([prompt, answer])
        sequences.append(EncodedSequence(ids, np.arange(len(ids)) >= len(prompt)))

    def read(items: list[int]) -> list[float]:
        row = pack_sequences([sequences[item] for item in items])
        values = token_logprobs(_run(policy, row), row.labels, temperature=temperature)
        return torch.zeros(len(items)).index_add(0, row.items, values).tolist()

    return _by_row([len(each) for each in sequences], read)


def answer_scores(reward: PackedScalarModel, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """The reward model's score of each (prompt, answer), in reward units."""

    def read(items: list[int]) -> list[float]:
        return _run(reward, pack_trees([(pairs[item][0], [pairs[item][1]]) for item in items])).tolist()

    return _by_row([len(prompt) + len(answer) for prompt, answer in pairs], read)


def tree_scores(
    reward: PackedScalarModel, trees: Sequence[Tree], advance: Callable[[int], None] = lambda count: None
) -> list[list[float]]:
    """The reward model's scores of each tree's answers, in order; `advance` is told how many trees are done."""

    def read(items: list[int]) -> list[list[float]]:
        flat = iter(_run(reward, pack_trees([trees[item] for item in items])).tolist())
        advance(len(items))
        return [[next(flat) for _ in trees[item][1]] for item in items]

    return _by_row([len(prompt) + sum(map(len, answers)) for prompt, answers in trees], read)


@torch.no_grad()
def _run(model: PackedCausalLM | PackedScalarModel, row: PackedRow) -> Tensor:
    row = row.to(next(model.parameters()).device)
    return model.eval()(row.input_ids, row.position_ids, row.segments, row.positions)


def _by_row(lengths: Sequence[int], read: Callable[[list[int]], list[Value]]) -> list[Value]:
    found: dict[int, Value] = {}
    for items in plan_micro_batches(lengths, max(MICRO_TOKENS, *lengths), 1)[0]:
        if items:
            found |= dict(zip(items, read(items), strict=True))
    return [found[item] for item in range(len(lengths))]
