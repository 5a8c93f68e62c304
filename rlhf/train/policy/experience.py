"""From prompts to experience: answers, their log-probabilities under every role, values, rewards, advantages.

Ranks share the work and then exchange the results, so that every rank holds the whole iteration: minibatches,
their order and all moments are the same whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlhf.config.algorithm import PpoSection
from rlhf.config.schema import PpoConfig
from rlhf.data.encode import EncodedPrompt
from rlhf.data.packing import PackedRow
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.models.adapters import plain_weights
from rlhf.ops.advantages import Advantages, discounted_returns, gae, grpo, rloo
from rlhf.ops.importance import truncated_importance
from rlhf.ops.masking import masked_mean, masked_sum, squared_deviation_sum, whiten
from rlhf.ops.moments import Moments, standardised, updated
from rlhf.ops.rewards import kl_estimate, token_rewards
from rlhf.rollout.base import Floats
from rlhf.rollout.transformers import TransformersRollout
from rlhf.rollout.vllm import VllmRollout
from rlhf.train.policy.reward_sources import RewardSources, Scores
from rlhf.train.policy.roles import FrozenRole, Roles
from rlhf.train.policy.samples import Sample, map_samples, padded, response_mask


@dataclass(frozen=True, slots=True)
class Experience:
    """The samples of one iteration, what they look like on average, and the moments of all scores so far."""

    samples: list[Sample]
    metrics: dict[str, float]
    moments: Moments


def draw_answers(
    policy: FrozenRole,
    tokenizer: ChatTokenizer,
    prompts: Sequence[EncodedPrompt],
    config: PpoConfig,
    step: int,
    engine: VllmRollout | None = None,
) -> list[Sample]:
    """One answer a prompt, drawn by all ranks; streams are named by (seed, step, row, place in the batch).

    `engine` draws with the policy's weights in place of the transformers rollout.
    """
    ranks = policy.ranks
    mine = range(ranks.rank, len(prompts), ranks.world_size)
    with policy.full_weights() as model:
        if engine is not None:
            engine.wake(plain_weights(model))
        rollout = engine or TransformersRollout(model, tokenizer.eos_id, tokenizer.text)
        drawn = rollout.generate(
            [prompts[item].ids for item in mine],
            [(config.run.seed, step, prompts[item].row, item) for item in mine],
            config.sampling,
        )
        if engine is not None:
            engine.rest()
    parts = ranks.gather((list(mine), drawn))
    samples = {
        item: Sample(prompts[item], tokens, finished, logprobs)
        for items, rollouts in parts
        for item, tokens, logprobs, finished in zip(
            items, rollouts.tokens, rollouts.logprobs, rollouts.finished, strict=True
        )
    }
    return [samples[item] for item in range(len(prompts))]


def corrected(samples: Sequence[Sample], roles: Roles, config: PpoConfig) -> tuple[list[Sample], dict[str, float]]:
    """Answers that another engine drew, with the actor's own log-probabilities and what their advantages are to be
    multiplied by; and how far the two engines are apart, in nats a token."""
    temperature = config.sampling.temperature

    def read(row: PackedRow) -> Tensor:
        return roles.actor.infer_logprobs(row, temperature).logprobs

    own = map_samples(samples, roles.actor.ranks, config.train.micro_tokens, read)
    mask = response_mask(samples)
    drawn = padded([sample.old_logprobs for sample in samples], mask)
    found = truncated_importance(padded(own, mask), drawn, mask, cap=config.rollout.importance_cap)
    done = [
        replace(sample, old_logprobs=logprobs, importance=weights[mine].numpy())
        for sample, logprobs, weights, mine in zip(samples, own, found.weights, mask, strict=True)
    ]
    return done, {"rollout_gap": float(found.mean_gap), "rollout_gap_max": float(found.max_gap)}


def gather_experience(
    samples: Sequence[Sample],
    roles: Roles,
    sources: RewardSources,
    config: PpoConfig,
    kl_coefficient: float,
    moments: Moments = Moments(),  # noqa: B008 - an immutable tuple
) -> Experience:
    """Steps 3 to 6 of an iteration: log-probabilities, values and scores; rewards; advantages; whitening.

    `moments` are those of the scores before. No weight moves here.
    """
    ppo = config.ppo
    # 3. the reference's log-probabilities, the critic's values, the sources' scores
    judged, scores = _judged(samples, roles, sources, config)
    # 4. token rewards: the KL penalty everywhere (or in the loss), the score at the end
    mask = response_mask(judged)
    old = padded([sample.old_logprobs for sample in judged], mask)
    reference = padded([known for sample in judged if (known := sample.reference_logprobs) is not None], mask)
    paid, moments = _on_scale(torch.tensor(scores.totals), moments, ppo)
    rewards = token_rewards(
        paid,
        kl_estimate(old, reference, mask, kind=ppo.kl_estimator),
        mask,
        torch.tensor([sample.finished for sample in judged]),
        kl_coefficient=kl_coefficient if ppo.kl_in == "reward" else 0.0,
        score_clip=ppo.score_clip,
        missing_eos_penalty=ppo.missing_eos_penalty,
    )
    # 5. advantages
    values = [sample.values for sample in judged if sample.values is not None]
    value_table = padded(values, mask) if values else None
    estimated = estimate_advantages(rewards, value_table, mask, ppo)
    # 6. whitened with moments over the whole iteration, all ranks included
    advantages = whitened(estimated.advantages, mask) if ppo.whitens else estimated.advantages

    done = [
        replace(sample, advantages=gained[mine].numpy() * sample.importance, returns=due[mine].numpy())
        for sample, gained, due, mine in zip(judged, advantages, estimated.returns, mask, strict=True)
    ]
    kl = kl_estimate(old, reference, mask, kind="k1").sum(1)
    metrics = {**_outlook(judged, scores, kl, config), "entropy": float(-old[mask].mean())}
    if value_table is not None:
        metrics["explained_variance"] = explained_variance(estimated.returns[mask], value_table[mask])
    return Experience(done, {**metrics, **_scale(rewards.sum(1), moments, ppo)}, moments)


def _scale(totals: Tensor, moments: Moments, ppo: PpoSection) -> dict[str, float]:
    """How far rewards [B] are apart within a group, and the scale of scores, where these are used."""
    metrics = {}
    if ppo.has_groups:
        metrics["group_reward_std"] = float(totals.view(-1, ppo.answers_per_prompt).std(1).mean())
    if ppo.score_normalise == "running":
        metrics |= {"score_mean": moments.mean, "score_deviation": moments.deviation}
    return metrics


def _judged(
    samples: Sequence[Sample], roles: Roles, sources: RewardSources, config: PpoConfig
) -> tuple[list[Sample], Scores]:
    """The samples with what reference, critic and sources say of them (no values without a critic)."""
    ranks, budget, temperature = roles.actor.ranks, config.train.micro_tokens, config.sampling.temperature

    def reference_logprobs(row: PackedRow) -> Tensor:
        return roles.reference.logprobs(row, temperature).logprobs

    reference = map_samples(samples, ranks, budget, reference_logprobs)
    values: Sequence[Floats | None] = [None] * len(samples)
    if roles.critic is not None:
        values = map_samples(samples, ranks, budget, roles.critic.infer)
    scores = sources.scores(samples)
    judged = [
        replace(sample, score=score, reference_logprobs=logprobs, values=value)
        for sample, score, logprobs, value in zip(samples, scores.totals, reference, values, strict=True)
    ]
    return judged, scores


def _on_scale(scores: Tensor, moments: Moments, ppo: PpoSection) -> tuple[Tensor, Moments]:
    """Scores as they are paid, before clipping, and the moments with these scores among them."""
    if ppo.score_normalise == "none":
        return scores, moments
    moments = updated(moments, scores)
    return standardised(scores, moments), moments


def estimate_advantages(rewards: Tensor, values: Tensor | None, mask: Tensor, ppo: PpoSection) -> Advantages:
    """Advantages [B, T] as `ppo.estimator` says; rows are in groups of `ppo.answers_per_prompt`, one prompt each."""
    if ppo.estimator == "gae":
        assert values is not None
        return gae(rewards, values, mask, gamma=ppo.gamma, lam=ppo.lam)
    returns = discounted_returns(rewards, mask, gamma=ppo.gamma)
    if ppo.estimator == "reinforce_pp":
        return Advantages(returns, returns)
    totals = masked_sum(rewards, mask, dim=1).view(-1, ppo.answers_per_prompt)
    compared = rloo(totals) if ppo.estimator == "rloo" else grpo(totals)
    return Advantages(torch.where(mask, compared.view(-1, 1), 0), returns)


def whitened(advantages: Tensor, mask: Tensor) -> Tensor:
    """[B, T] with mean 0 and variance 1 over the mask; the table holds every rank's samples, so these are global."""
    mean = masked_mean(advantages, mask)
    variance = squared_deviation_sum(advantages, mask, mean) / mask.sum()
    return whiten(advantages, mask, mean=mean, variance=variance)


def explained_variance(returns: Tensor, values: Tensor) -> float:
    """Share of the variance of returns [N] that values [N] foretold; 1 is all of it, below 0 is worse than none."""
    residual = returns - values
    return float(1 - residual.var(unbiased=False) / returns.var(unbiased=False).clamp(min=1e-8))


def _outlook(samples: Sequence[Sample], scores: Scores, kl: Tensor, config: PpoConfig) -> dict[str, float]:
    """Means over the iteration, by reward source, and by source of prompts where there are several."""
    metrics = {
        "reward": float(np.mean(scores.totals)),
        "reward_std": float(np.std(scores.totals)),
        "kl": float(kl.mean()),
        "eos_rate": float(np.mean([sample.finished for sample in samples])),
        "response_tokens": float(np.mean([len(sample.response) for sample in samples])),
    }
    metrics |= {f"reward/{name}": float(np.mean(found)) for name, found in scores.by_source.items()}
    names = sorted({sample.prompt.source for sample in samples}) if len(config.data.train) > 1 else []
    for name in names:
        rows = [row for row, sample in enumerate(samples) if sample.prompt.source == name]
        metrics[f"by_source/{name}/reward"] = float(np.mean([scores.totals[row] for row in rows]))
        metrics[f"by_source/{name}/kl"] = float(kl[rows].mean())
    return metrics
