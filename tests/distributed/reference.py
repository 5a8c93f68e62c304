"""The expected numbers: one process, plain Hugging Face modules, padded rows, torch.optim.AdamW.

Nothing of the package computes here; only its batches (arrays of ids and masks) are read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.data.encode import EncodedRanking, EncodedSequence, Ids
from rlhf.train.policy.samples import Sample
from tests.distributed.problem import (
    EOS,
    FACTORS,
    GROUP,
    KL_COEFFICIENT,
    MINIBATCHES,
    OPTIMIZER,
    PAD,
    RULE_WEIGHT,
    TEMPERATURE,
    rule_scores,
)


@dataclass
class Trace:
    """What three steps left behind."""

    metrics: list[dict[str, float]]
    weights: dict[str, dict[str, Tensor]]


def causal_lm(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train()


def classifier(folder: Path) -> Any:
    auto = AutoModelForSequenceClassification
    return auto.from_pretrained(folder, dtype=torch.float32, num_labels=1, attn_implementation="eager").train()


def pad_right(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """ids and attention mask, [B, T]."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), PAD)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.from_numpy(row.astype(np.int64))
        mask[number, : len(row)] = 1
    return ids, mask


class Learner:
    """A model and its AdamW: matrices decay, vectors do not; one global clip."""

    def __init__(self, model: nn.Module, lr: float = OPTIMIZER["lr"]) -> None:
        self.model, self.lr = model, lr
        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": OPTIMIZER["weight_decay"]},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        betas = (OPTIMIZER["beta1"], OPTIMIZER["beta2"])
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, eps=OPTIMIZER["epsilon"])

    def learn(self, loss: Tensor, step: int) -> float:
        """One update; the norm before clipping. `step` counts from 0."""
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), OPTIMIZER["max_grad_norm"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * FACTORS[step]
        self.optimizer.step()
        return float(norm)

    def weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}


def sft(folder: Path, batches: Sequence[Sequence[EncodedSequence]]) -> Trace:
    """Mean of weight * -log p over all tokens but each row's first; prompt tokens weigh 0.25 of answer tokens."""
    learner, metrics = Learner(causal_lm(folder)), []
    for step, batch in enumerate(batches):
        ids, mask = pad_right([item.ids for item in batch])
        logprobs = learner.model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        cost, count = torch.zeros(()), 0.0
        for row, item in enumerate(batch):
            for token in range(1, len(item)):
                weight = 1.0 if item.answer_mask[token] else 0.25
                cost = cost - weight * logprobs[row, token - 1, int(item.ids[token])]
                count += weight
        loss = cost / count
        norm = learner.learn(loss, step)
        metrics.append({"loss": float(loss.detach()), "grad_norm": norm})
    return Trace(metrics, {"model": learner.weights()})


def reward(folder: Path, batches: Sequence[Sequence[EncodedRanking]]) -> Trace:
    """InstructGPT eq. 1 with label smoothing 0.1 and centering 0.01, an answer a row."""
    learner, metrics = Learner(classifier(folder)), []
    for step, batch in enumerate(batches):
        total, correct, margins = torch.zeros(()), 0, []
        for item in batch:
            ids, mask = pad_right([np.concatenate([item.prompt, answer]) for answer in item.answers])
            scores = learner.model(input_ids=ids, attention_mask=mask).logits[:, 0]
            costs = []
            for better, worse in itertools.permutations(range(len(item.answers)), 2):
                if item.ranks[better] < item.ranks[worse]:
                    gap = scores[better] - scores[worse]
                    cost = 0.9 * (1 + (-gap).exp()).log() + 0.1 * (1 + gap.exp()).log()
                    costs.append(cost + 0.01 * (scores[better] + scores[worse]) ** 2)
                    correct += int(gap > 0)
                    margins.append(float(gap.detach()))
            total = total + torch.stack(costs).mean()
        loss = total / len(batch)
        norm = learner.learn(loss, step)
        metrics.append(
            {
                "loss": float(loss.detach()),
                "grad_norm": norm,
                "reward_model/accuracy": correct / len(margins),
                "reward_model/margin": sum(margins) / len(margins),
            }
        )
    return Trace(metrics, {"model": learner.weights()})


def response_logits(model: Any, sample: Sample) -> Tensor:
    """[tokens of the response, V]: what the model said before each, at the sampling temperature."""
    ids = np.concatenate([sample.prompt.ids, sample.response])
    logits = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0]
    return logits[len(sample.prompt.ids) - 1 : -1] / TEMPERATURE


def response_logprobs(model: Any, sample: Sample) -> Tensor:
    chosen = torch.from_numpy(sample.response.astype(np.int64))
    return response_logits(model, sample).log_softmax(-1).gather(1, chosen[:, None])[:, 0]


def response_values(model: Any, sample: Sample) -> Tensor:
    """The critic's value of each state: read at the token before the one that is chosen there."""
    ids = np.concatenate([sample.prompt.ids, sample.response])
    backbone = getattr(model, model.base_model_prefix)
    hidden = backbone(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state[0]
    return model.score(hidden[len(sample.prompt.ids) - 1 : -1])[:, 0]


@torch.no_grad()
def completed(samples: Sequence[Sequence[Sample]], actor: Path, critic: Path) -> list[list[Sample]]:
    """Samples whose old log-probabilities and values lie around the models' own, so that clips bite for some."""
    policy, value = causal_lm(actor), classifier(critic)
    return [
        [
            replace(
                sample,
                old_logprobs=sample.old_logprobs + response_logprobs(policy, sample).numpy(),
                values=sample.values + (now := response_values(value, sample).numpy()),
                returns=sample.returns + now,
            )
            for sample in batch
        ]
        for batch in samples
    ]


def ppo(actor: Path, critic: Path, batches: Sequence[Sequence[Sample]]) -> Trace:
    """Clipped surrogate minus 0.01 * entropy, and the clipped value loss, means over response tokens; a row a
    forward."""
    policy, value, metrics = Learner(causal_lm(actor)), Learner(classifier(critic), lr=0.02), []
    for step, batch in enumerate(batches):
        gains, entropies, costs, clipped, moved, value_clipped = [], [], [], [], [], []
        for sample in batch:
            logits, old = response_logits(policy.model, sample), torch.from_numpy(sample.old_logprobs)
            ratio = (response_logprobs(policy.model, sample) - old).exp()
            entropies.append(torch.distributions.Categorical(logits=logits).entropy())
            advantage = torch.from_numpy(sample.advantages)
            plain, held = ratio * advantage, torch.clamp(ratio, 0.8, 1.2) * advantage
            gains.append(torch.where(held < plain, held, plain))
            clipped.append((held < plain).float())
            moved.append((ratio - 1 - ratio.log()).detach())
            now, before = response_values(value.model, sample), torch.from_numpy(sample.values)
            target = torch.from_numpy(sample.returns)
            near = before + torch.clamp(now - before, -0.2, 0.2)
            plain, held = (now - target) ** 2, (near - target) ** 2
            costs.append(0.5 * torch.where(held > plain, held, plain))
            value_clipped.append((held > plain).float())
        policy_loss, entropy_loss = -torch.cat(gains).mean(), -0.01 * torch.cat(entropies).mean()
        value_loss = torch.cat(costs).mean()
        metrics.append(
            {
                "policy/loss": float(policy_loss.detach()),
                "policy/entropy_loss": float(entropy_loss.detach()),
                "value/loss": float(value_loss.detach()),
                "policy/clip_fraction": float(torch.cat(clipped).mean()),
                "policy/approx_kl": float(torch.cat(moved).mean()),
                "value/clip_fraction": float(torch.cat(value_clipped).mean()),
                "grad_norm": policy.learn(policy_loss + entropy_loss, step),
                "value/grad_norm": value.learn(value_loss, step),
            }
        )
    return Trace(metrics, {"actor": policy.weights(), "critic": value.weights()})


@torch.no_grad()
def group_advantages(scorer: Path, samples: Sequence[Sample]) -> list[float]:
    """Score and rule, 1 off without EOS, in sample deviations from the mean of three neighbours."""
    judge, totals = classifier(scorer), []
    for sample, rule in zip(samples, rule_scores(len(samples)), strict=True):
        ids = torch.from_numpy(np.concatenate([sample.prompt.ids, sample.response]).astype(np.int64))[None]
        score = float(judge(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0])
        totals.append(score + RULE_WEIGHT * rule - (0.0 if sample.finished else 1.0))
    found = []
    for first in range(0, len(totals), GROUP):
        group = totals[first : first + GROUP]
        mean = sum(group) / GROUP
        deviation = math.sqrt(sum((each - mean) ** 2 for each in group) / (GROUP - 1))
        found += [(each - mean) / (deviation + 1e-4) for each in group]
    return found


def critic_free(
    actor: Path, start: Path, scorer: Path, samples: Sequence[Sample], shown: Sequence[Sequence[EncodedSequence]]
) -> Trace:
    """Clipped surrogate with one advantage an answer, 0.1 times k3 to `start`, half the demonstrations' nats."""
    policy, other, metrics = Learner(causal_lm(actor)), causal_lm(start), []
    advantages = group_advantages(scorer, samples)
    for step, part in enumerate(MINIBATCHES):
        gains, costs, ratios = [], [], []
        for sample, advantage in zip(samples[part], advantages[part], strict=True):
            logprobs, old = response_logprobs(policy.model, sample), torch.from_numpy(sample.old_logprobs)
            ratio = (logprobs - old).exp()
            gains.append(torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage))
            gap = response_logprobs(other, sample).detach() - logprobs
            costs.append(gap.exp() - 1 - gap)
            ratios.append(ratio.detach())
        kl = KL_COEFFICIENT * torch.cat(costs).mean()
        taught = demonstrated(policy.model, shown[step])
        policy_loss = -torch.cat(gains).mean()
        alone = torch.autograd.grad(0.5 * taught, list(policy.model.parameters()), retain_graph=True)
        metrics.append(
            {
                "policy/loss": float(policy_loss.detach()),
                "policy/kl_loss": float(kl.detach()),
                "policy/ptx_loss": float(taught.detach()),
                "policy/ptx_grad_norm": math.sqrt(sum(float(each.double().square().sum()) for each in alone)),
                "policy/ratio_max": float(torch.cat(ratios).max()),
                "grad_norm": policy.learn(policy_loss + kl + 0.5 * taught, step),
            }
        )
    return Trace(metrics, {"actor": policy.weights()})


def demonstrated(model: Any, batch: Sequence[EncodedSequence]) -> Tensor:
    """Mean of -log p over answer tokens."""
    cost, count = torch.zeros(()), 0
    for item in batch:
        logprobs = model(input_ids=torch.from_numpy(item.ids.astype(np.int64))[None]).logits[0].log_softmax(-1)
        for token in range(1, len(item)):
            if item.answer_mask[token]:
                cost = cost - logprobs[token - 1, int(item.ids[token])]
                count += 1
    return cost / count


@torch.no_grad()
def experience(reference: Path, critic: Path, scorer: Path, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Score, values, whitened advantages and returns of each sample, token by token in float64.

    Settings of problem.ppo_config: k2, scores clipped at 1, 1 off without EOS, gamma 0.98, lambda 0.9.
    """
    policy, value, judge = causal_lm(reference), classifier(critic), classifier(scorer)
    rows = []
    for sample in samples:
        ids = torch.from_numpy(np.concatenate([sample.prompt.ids, sample.response]).astype(np.int64))[None]
        score = float(judge(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0])
        values = response_values(value, sample).double().tolist()
        logprobs = response_logprobs(policy, sample).double().tolist()
        kl = [(float(old) - new) ** 2 / 2 for old, new in zip(sample.old_logprobs, logprobs, strict=True)]
        rewards = [-KL_COEFFICIENT * each for each in kl]
        rewards[-1] += max(-1.0, min(1.0, score)) - (0.0 if sample.finished else 1.0)
        advantages, following, after = [0.0] * len(kl), 0.0, 0.0
        for token in reversed(range(len(kl))):
            following = rewards[token] + 0.98 * after - values[token] + 0.98 * 0.9 * following
            advantages[token], after = following, values[token]
        returns = [a + v for a, v in zip(advantages, values, strict=True)]
        row = {"score": score, "values": values, "reference_logprobs": logprobs}
        rows.append({**row, "advantages": advantages, "returns": returns})
    every = [advantage for row in rows for advantage in row["advantages"]]
    mean = sum(every) / len(every)
    deviation = math.sqrt(sum((each - mean) ** 2 for each in every) / len(every))
    return [{**row, "advantages": [(each - mean) / deviation for each in row["advantages"]]} for row in rows]


@torch.no_grad()
def greedy_answer(model: Any, prompt: Ids, count: int) -> list[int]:
    """The likeliest token again and again, without a cache or padding; EOS included when it comes."""
    ids = prompt.tolist()
    for _ in range(count):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == EOS:
            break
    return ids[len(prompt) :]
