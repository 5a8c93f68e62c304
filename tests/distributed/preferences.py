"""Preference optimisation as a plain loop: one process, padded rows, a second model for the reference.

Nothing of the package computes here; only its batches are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.config.schema import DpoConfig
from rlhf.data.encode import EncodedMarked, EncodedRanking, Ids
from rlhf.train.preference.data import answers_of_others
from tests.distributed.problem import OPTIMIZER, SMALL
from tests.distributed.reference import Learner, Trace, causal_lm, pad_right

BETA, SMOOTHING, SFT_WEIGHT, GOOD_WEIGHT = 0.5, 0.1, 0.2, 1.5
LOSSES = ("sigmoid", "kto")


def dpo_config(loss: str, micro_tokens: int = SMALL) -> DpoConfig:
    dpo: dict[str, Any] = {"loss": loss, "beta": BETA, "sft_weight": SFT_WEIGHT}
    dpo |= {"good_weight": GOOD_WEIGHT} if loss == "kto" else {"label_smoothing": SMOOTHING}
    train = {**OPTIMIZER, "micro_tokens": micro_tokens}
    sampling = {"max_prompt_tokens": 20, "max_new_tokens": 12}
    return DpoConfig.model_validate({"train": train, "data": {"max_length": SMALL}, "dpo": dpo, "sampling": sampling})


def items_of(loss: str, rankings: Sequence[EncodedRanking]) -> list[Any]:
    """The rankings themselves, or their best answers as good ones and all others as bad ones."""
    if loss != "kto":
        return list(rankings)
    return [EncodedMarked(each.prompt, each.answers, tuple(rank == 1 for rank in each.ranks)) for each in rankings]


def logprobs(model: Any, prompt: Ids, answers: Sequence[Ids]) -> Tensor:
    """[K] nats, an answer a row."""
    ids, mask = pad_right([np.concatenate([prompt, answer]) for answer in answers])
    logits = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
    found = []
    for row, answer in enumerate(answers):
        places = range(len(prompt), len(prompt) + len(answer))
        found.append(torch.stack([logits[row, place - 1, int(ids[row, place])] for place in places]).sum())
    return torch.stack(found)


def preferences(folder: Path, batches: Sequence[Sequence[EncodedRanking]], loss: str) -> Trace:
    """DPO with label smoothing, or KTO, and the cross-entropy of the best answers, with a second model as reference."""
    learner, frozen, metrics = Learner(causal_lm(folder)), causal_lm(folder).eval(), []
    for step, batch in enumerate(batches):
        items = items_of(loss, batch)
        point = _reference_point(learner.model, frozen, items) if loss == "kto" else 0.0
        costs, best, tokens = [], torch.zeros(()), 0
        for item in items:
            own = logprobs(learner.model, item.prompt, item.answers)
            with torch.no_grad():
                rewards_before = logprobs(frozen, item.prompt, item.answers)
            rewards = BETA * (own - rewards_before)
            first = min(item.ranks) if loss != "kto" else 1
            for answer, rank in enumerate(item.ranks):
                if rank == first:
                    best, tokens = best - own[answer], tokens + len(item.answers[answer])
            costs.append(_verdict_costs(rewards, item, point) if loss == "kto" else _pair_cost(rewards, item))
        flat = torch.cat(costs) if loss == "kto" else torch.stack(costs)
        total = flat.mean() + SFT_WEIGHT * best / max(1, tokens)
        norm = learner.learn(total, step)
        metrics.append({"loss": float(total.detach()), "grad_norm": norm})
        if tokens:
            metrics[-1]["preference/best_nll"] = float(best.detach()) / tokens
        if loss == "kto":
            metrics[-1]["preference/reference_point"] = point
    return Trace(metrics, {"model": learner.weights()})


def _pair_cost(rewards: Tensor, item: EncodedRanking) -> Tensor:
    """The mean over a prompt's untied pairs."""
    costs = []
    for better, worse in itertools.permutations(range(len(item.answers)), 2):
        if item.ranks[better] < item.ranks[worse]:
            gap = rewards[better] - rewards[worse]
            costs.append((1 - SMOOTHING) * (1 + (-gap).exp()).log() + SMOOTHING * (1 + gap.exp()).log())
    return torch.stack(costs).mean()


def _verdict_costs(rewards: Tensor, item: EncodedMarked, point: float) -> Tensor:
    """A cost for each answer."""
    above = rewards - BETA * point
    return torch.stack(
        [
            GOOD_WEIGHT * (1 - each.sigmoid()) if good else 1 - (-each).sigmoid()
            for each, good in zip(above, item.good, strict=True)
        ]
    )


@torch.no_grad()
def _reference_point(model: Any, frozen: Any, items: Sequence[EncodedMarked]) -> float:
    ratios = [
        float(logprobs(model, prompt, answers) - logprobs(frozen, prompt, answers))
        for prompt, answers in answers_of_others(items, SMALL)
    ]
    return max(0.0, sum(ratios) / len(ratios))
