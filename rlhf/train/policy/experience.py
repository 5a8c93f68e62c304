"""From prompts to experience: answers, their log-probabilities under every role, values, rewards, advantages.

Ranks share the work and then exchange the results, so that every rank holds the whole iteration: minibatches,
their order and all moments are the same whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from rlhf.config.algorithm import PpoSection
from rlhf.config.ppo import PpoConfig
from rlhf.config.sections import SamplingSection
from rlhf.data.encode import EncodedPrompt, EncodedSequence, Ids
from rlhf.data.packing import PackedRow, pack_sequences
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.ranks import Ranks
from rlhf.errors import EngineError
from rlhf.ops.advantages import Advantages, discounted_returns, explained_variance, gae, grpo, rloo
from rlhf.ops.importance import truncated_importance, weighted_advantages
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.ops.masking import masked_mean, masked_sum, whiten
from rlhf.ops.moments import Moments, rescaled, standardised, updated
from rlhf.ops.rewards import kl_estimate, overlong_rewards, token_rewards
from rlhf.rollout.base import Floats, Rollouts
from rlhf.rollout.graphs import Graphs
from rlhf.rollout.transformers import TransformersRollout
from rlhf.rollout.vllm.client import Pending, VllmRollout, occurrences
from rlhf.train.policy.reward_sources import RewardSources, Scores
from rlhf.train.policy.roles import FrozenRole, ReferenceRole, Roles
from rlhf.train.policy.samples import Sample, padded, read_table, response_mask, with_tables


@dataclass(frozen=True, slots=True)
class Experience:
    """The samples of one iteration, their summary, and the moments of all scores so far."""

    samples: list[Sample]
    metrics: dict[str, float]
    moments: Moments


def draw_answers(
    policy: ReferenceRole,
    tokenizer: ChatTokenizer,
    prompts: Sequence[EncodedPrompt],
    config: PpoConfig,
    step: int,
    engine: VllmRollout | None = None,
    *,
    first: int = 0,
) -> list[Sample]:
    """One answer per prompt, sampled by all ranks; random streams are seeded by (seed, step, row, place in the batch),
    with `engine` by (seed, step, row, number of the answer to that prompt).

    `first` is the place of the first prompt, and is added to the number of an answer: what the step drew before.

    With `engine`, vLLM samples with the policy's weights in place of the transformers rollout.

    Raises: EngineError, on every rank, when the engine of one fails.
    """
    if engine is not None:
        return begin_answers(policy, prompts, config, step, engine, first=first).result()
    streams = [(config.run.seed, step, prompt.row, first + item) for item, prompt in enumerate(prompts)]
    return answer_alone(policy, tokenizer, prompts, streams, config.sampling, graphs=config.rollout.cuda_graphs)


def answer_alone(
    policy: FrozenRole,
    tokenizer: ChatTokenizer,
    prompts: Sequence[EncodedPrompt],
    streams: Sequence[tuple[int, ...]],
    sampling: SamplingSection,
    *,
    graphs: Graphs = "auto",
) -> list[Sample]:
    """One answer per prompt by the transformers rollout, each from its random stream; the ranks share the work."""
    ranks = policy.ranks
    mine = range(ranks.rank, len(prompts), ranks.world_size)
    with policy.full_weights() as model:
        plain = TransformersRollout(model, tokenizer.eos_id, tokenizer.text, graphs)
        drawn = plain.generate([prompts[item].ids for item in mine], [streams[item] for item in mine], sampling)
    return samples_in_order(prompts, ranks.gather((list(mine), drawn)))


@dataclass(frozen=True, slots=True)
class AnswersBegun:
    """Answers that the engines of all ranks are drawing; `items` are those of this rank's engine."""

    ranks: Ranks
    engine: VllmRollout
    prompts: Sequence[EncodedPrompt]
    items: list[int]
    drawn: Pending

    def result(self) -> list[Sample]:
        """Waits for the answers to all prompts. Raises: EngineError on every rank."""

        def take() -> tuple[list[int], Rollouts]:
            drawn = self.drawn.result()
            self.engine.rest()
            return self.items, drawn

        return samples_in_order(self.prompts, _agreed(self.ranks, take))


def begin_answers(
    policy: ReferenceRole,
    prompts: Sequence[EncodedPrompt],
    config: PpoConfig,
    step: int,
    engine: VllmRollout,
    *,
    first: int = 0,
) -> AnswersBegun:
    """Gives the engines the policy's weights and begins to draw one answer per prompt; the policy may then change.
    `first` as in `draw_answers`.

    Each rank takes all answers to its prompts, so that an engine reads a prompt once.
    Raises: EngineError on every rank.
    """
    ranks = policy.ranks
    push_checked(policy, engine)
    numbers = occurrences(prompt.row for prompt in prompts)
    shares = list(dict.fromkeys(prompt.row for prompt in prompts))
    mine = [item for item, prompt in enumerate(prompts) if shares.index(prompt.row) % ranks.world_size == ranks.rank]
    begun: list[Pending] = []

    def start() -> None:
        ids = [prompts[item].ids for item in mine]
        streams = [(config.run.seed, step, prompts[item].row, first + numbers[item]) for item in mine]
        begun.append(engine.start(ids, streams, config.sampling))

    _agreed(ranks, start)
    return AnswersBegun(ranks, engine, prompts, mine, begun[0])


def push_checked(policy: ReferenceRole, engine: VllmRollout) -> None:
    """Gives the engine the policy's weights; after the first push the two must agree on the log-probabilities of fixed
    rows. Raises: EngineError on every rank."""
    with policy.held_weights() as model:
        failure = engine.push(model)
    if engine.checked and failure is None and policy.ranks.world_size == 1:
        return

    def check() -> None:
        if failure is not None:
            raise failure
        if not engine.checked:
            engine.check(expected)

    expected = [] if engine.checked else [_logprobs_of(policy, row) for row in engine.check_rows()]
    _agreed(policy.ranks, check)


def _logprobs_of(policy: ReferenceRole, ids: Ids) -> Floats:
    """Log-probabilities of the ids from the second on, nats."""
    row = pack_sequences([EncodedSequence(ids, np.arange(len(ids)) > 0, "")])
    return policy.infer_logprobs(row, 1.0).logprobs.float().cpu().numpy()


Result = TypeVar("Result")


def _agreed(ranks: Ranks, action: Callable[[], Result]) -> list[Result]:
    """What `action` returns on each rank; when the engine of one fails, every rank raises its error."""
    try:
        own: Result | EngineError = action()
    except EngineError as error:
        own = error
    found: list[Result] = []
    for each in ranks.gather(own):
        if isinstance(each, EngineError):
            raise each
        found.append(each)
    return found


def samples_in_order(prompts: Sequence[EncodedPrompt], parts: Sequence[tuple[list[int], Rollouts]]) -> list[Sample]:
    """Samples in the order of the prompts, of what each rank drew for its items."""
    samples = {
        item: Sample(prompts[item], tokens, finished, logprobs)
        for items, rollouts in parts
        for item, tokens, logprobs, finished in zip(
            items, rollouts.tokens, rollouts.logprobs, rollouts.finished, strict=True
        )
    }
    return [samples[item] for item in range(len(prompts))]


def read_logprobs(
    samples: Sequence[Sample],
    mask: Tensor,
    ranks: Ranks,
    config: PpoConfig,
    logprobs: Callable[[PackedRow, float], TokenLogprobs],
) -> Tensor:
    """Log-probabilities of the response tokens, [B, T] nats, by a role's `logprobs` at the sampling temperature."""

    def read(row: PackedRow) -> Tensor:
        return logprobs(row, config.sampling.temperature).logprobs

    return read_table(samples, mask, ranks, config.train.micro_tokens, read)


def with_training_logprobs(
    samples: Sequence[Sample], roles: Roles, config: PpoConfig
) -> tuple[list[Sample], Tensor, dict[str, float]]:
    """Answers with the log-probabilities of the training forward pass in place of those that they were drawn with: by
    another engine, or by decoding in half precision; the importance weights of their advantages, [B, T]; and the gap
    between the two in nats per token."""
    mask = response_mask(samples)
    sampled = padded([sample.old_logprobs for sample in samples], mask)
    own = read_logprobs(samples, mask, roles.actor.ranks, config, roles.actor.infer_logprobs)
    found = truncated_importance(own, sampled, mask, cap=config.rollout.importance_cap)
    gaps = {"rollout/gap": float(found.mean_gap), "rollout/gap_max": float(found.max_gap)}
    return with_tables(samples, mask, old_logprobs=own), found.weights, gaps


def gather_experience(
    samples: Sequence[Sample],
    roles: Roles,
    sources: RewardSources,
    config: PpoConfig,
    kl_coefficient: float,
    moments: Moments = Moments(),  # noqa: B008 - an immutable tuple
    importance: Tensor | None = None,
    scores: Scores | None = None,
) -> Experience:
    """Steps 3 to 6 of an iteration: log-probabilities, values and scores; rewards; advantages; whitening.

    `moments` are those of the scores before; `importance` [B, T] weighs the advantages; `scores` are those of the
    samples where the sources were asked already. No weight of a model changes.
    """
    ppo, mask = config.ppo, response_mask(samples)
    old = padded([sample.old_logprobs for sample in samples], mask)
    # 3. the reference's log-probabilities, the critic's values, the sources' scores
    reference = read_logprobs(samples, mask, roles.actor.ranks, config, roles.reference.infer_logprobs)
    values = None
    if roles.critic is not None:
        values = read_table(samples, mask, roles.actor.ranks, config.train.micro_tokens, roles.critic.infer)
    scores = scores or sources.scores(samples)
    # 4. token rewards: the KL penalty everywhere (or in the loss), the score at the end, or parts of it where earned
    paid, moments = _paid(scores, mask, moments, ppo)
    kl_cost = kl_estimate(old, reference, mask, kind=ppo.kl_estimator)
    rewards = _rewards(samples, mask, paid, kl_cost, kl_coefficient if ppo.kl_in == "reward" else 0.0, config)
    # 5. advantages
    estimated = estimate_advantages(rewards, values, mask, ppo)
    # 6. whitened with moments over the whole iteration, all ranks included
    advantages = whiten(estimated.advantages, mask) if ppo.whitens else estimated.advantages
    if importance is not None:
        advantages = weighted_advantages(advantages, importance, mask)

    kl = kl_estimate(old, reference, mask, kind="k1").sum(1)
    metrics = {**_summary_metrics(samples, scores, kl, config), "policy/entropy": float(-masked_mean(old, mask))}
    if values is not None:
        metrics["value/explained_variance"] = explained_variance(values, estimated.returns, mask)
    scored = [replace(sample, score=score) for sample, score in zip(samples, scores.totals, strict=True)]
    done = with_tables(
        scored, mask, reference_logprobs=reference, values=values, advantages=advantages, returns=estimated.returns
    )
    return Experience(done, metrics | _scale_metrics(rewards.sum(1), moments, ppo), moments)


def final_rewards(samples: Sequence[Sample], scores: Scores, moments: Moments, config: PpoConfig) -> Tensor:
    """What each answer is paid besides the KL penalty, [B] reward units, if no score but these came after `moments`."""
    mask = response_mask(samples)
    paid, _ = _paid(scores, mask, moments, config.ppo)
    return _rewards(samples, mask, paid, torch.zeros(mask.shape), 0.0, config).sum(1)


class Paid(NamedTuple):
    """Scores as they are paid, before clipping: at the last token [B], and at earlier ones [B, T], None for none."""

    ends: Tensor
    steps: Tensor | None


def _rewards(
    samples: Sequence[Sample], mask: Tensor, paid: Paid, kl: Tensor, kl_coefficient: float, config: PpoConfig
) -> Tensor:
    """The reward of each token, [B, T]: KL penalty, scores, and what unfinished and overlong answers cost."""
    ppo = config.ppo
    rewards = token_rewards(
        paid.ends,
        kl,
        mask,
        torch.tensor([sample.finished for sample in samples]),
        kl_coefficient=kl_coefficient,
        score_clip=ppo.score_clip,
        missing_eos_penalty=ppo.missing_eos_penalty,
        steps=paid.steps,
    )
    if not ppo.overlong_buffer:
        return rewards
    limit, penalty = config.sampling.max_new_tokens, ppo.overlong_penalty
    return rewards + overlong_rewards(mask, limit=limit, buffer=ppo.overlong_buffer, penalty=penalty)


def _paid(scores: Scores, mask: Tensor, moments: Moments, ppo: PpoSection) -> tuple[Paid, Moments]:
    """What is paid for scores, and the moments updated with them."""
    ends, steps = torch.tensor(scores.ends), _step_table(scores.steps, mask)
    if ppo.score_normalise == "none":
        return Paid(ends, steps), moments
    moments = updated(moments, torch.tensor(scores.totals))
    return Paid(standardised(ends, moments), None if steps is None else rescaled(steps, moments)), moments


def _step_table(steps: Sequence[Mapping[int, float]], mask: Tensor) -> Tensor | None:
    """Rewards by token as a [B, T] table; None where all are paid at the end."""
    if not any(steps):
        return None
    table = torch.zeros(mask.shape)
    for row, rewards in enumerate(steps):
        for token, reward in rewards.items():
            table[row, token] = reward
    return table


def estimate_advantages(rewards: Tensor, values: Tensor | None, mask: Tensor, ppo: PpoSection) -> Advantages:
    """Advantages [B, T] by `ppo.estimator`; rows are in groups of `ppo.answers_per_prompt` with one prompt each.

    RLOO and GRPO compare the sums of an answer's rewards: to them the whole answer is one action. GAE and REINFORCE++
    credit a token with the rewards that follow it.
    """
    if ppo.estimator == "gae":
        assert values is not None
        return gae(rewards, values, mask, gamma=ppo.gamma, lam=ppo.lam)
    returns = discounted_returns(rewards, mask, gamma=ppo.gamma)
    if ppo.estimator == "reinforce_pp":
        return Advantages(returns, returns)
    totals = masked_sum(rewards, mask, dim=1).view(-1, ppo.answers_per_prompt)
    compared = rloo(totals) if ppo.estimator == "rloo" else grpo(totals)
    return Advantages(torch.where(mask, compared.view(-1, 1), 0), returns)


def _summary_metrics(samples: Sequence[Sample], scores: Scores, kl: Tensor, config: PpoConfig) -> dict[str, float]:
    """Means over the iteration, by reward source, and by source of prompts where there are several."""
    metrics = {
        "objective/reward": float(np.mean(scores.totals)),
        "objective/reward_std": float(np.std(scores.totals)),
        "objective/kl": float(kl.mean()),
        "rollout/eos_rate": float(np.mean([sample.finished for sample in samples])),
        "rollout/response_tokens": float(np.mean([len(sample.response) for sample in samples])),
    }
    if config.ppo.overlong_buffer:
        free = config.sampling.max_new_tokens - config.ppo.overlong_buffer
        metrics["rollout/overlong_share"] = float(np.mean([len(sample.response) > free for sample in samples]))
    metrics |= {f"reward_by_source/{name}": float(np.mean(found)) for name, found in scores.by_source.items()}
    names = sorted({sample.prompt.source for sample in samples}) if len(config.data.train) > 1 else []
    for name in names:
        rows = [row for row, sample in enumerate(samples) if sample.prompt.source == name]
        metrics[f"prompts/{name}/reward"] = float(np.mean([scores.totals[row] for row in rows]))
        metrics[f"prompts/{name}/kl"] = float(kl[rows].mean())
    return metrics


def _scale_metrics(totals: Tensor, moments: Moments, ppo: PpoSection) -> dict[str, float]:
    """The spread of rewards [B] within a group, and the scale of scores, where these are used."""
    metrics = {}
    if ppo.has_groups:
        metrics["objective/group_reward_std"] = float(totals.view(-1, ppo.answers_per_prompt).std(1).mean())
    if ppo.score_normalise == "running":
        metrics |= {"objective/score_mean": moments.mean, "objective/score_std": moments.deviation}
    return metrics
