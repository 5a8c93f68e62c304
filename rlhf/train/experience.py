"""From prompts to experience: answers, their log-probabilities under every role, values, rewards, advantages.

Ranks share the work and then exchange the results, so that every rank holds the whole iteration: minibatches,
their order and all moments are the same whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlhf.config.schema import PpoConfig
from rlhf.data.encode import EncodedPrompt, EncodedSequence, Encoder, Ids
from rlhf.data.packing import PackedRow, pack_sequences, pack_trees, plan_micro_batches
from rlhf.data.records import Prompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.deepspeed import InferenceModel, TrainedModel
from rlhf.engine.ranks import Ranks
from rlhf.ops.advantages import gae
from rlhf.ops.logprobs import token_logprobs
from rlhf.ops.masking import masked_mean, squared_deviation_sum, whiten
from rlhf.ops.rewards import kl_estimate, token_rewards
from rlhf.rollout.base import Floats
from rlhf.rollout.transformers import TransformersRollout
from rlhf.train.roles import Roles


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and its answer. Arrays hold one number a response token, the sampled EOS included.

    old_logprobs, reference_logprobs in nats; values, rewards, advantages, returns and score in reward units.
    """

    prompt: EncodedPrompt
    response: Ids
    finished: bool
    old_logprobs: Floats
    score: float = 0.0
    reference_logprobs: Floats | None = None
    values: Floats | None = None
    advantages: Floats | None = None
    returns: Floats | None = None

    @property
    def sequence(self) -> EncodedSequence:
        """Prompt and response as one sequence whose response is read."""
        ids = np.concatenate([self.prompt.ids, self.response])
        return EncodedSequence(ids, np.arange(len(ids)) >= len(self.prompt.ids), self.prompt.source)


@dataclass(frozen=True, slots=True)
class Experience:
    """The samples of one iteration, and what they look like on average."""

    samples: list[Sample]
    metrics: dict[str, float]


def draw_answers(
    actor: TrainedModel,
    tokenizer: ChatTokenizer,
    prompts: Sequence[EncodedPrompt],
    config: PpoConfig,
    step: int,
) -> list[Sample]:
    """One answer a prompt, drawn by all ranks; streams are named by (seed, step, row, place in the batch)."""
    ranks = actor.ranks
    mine = range(ranks.rank, len(prompts), ranks.world_size)
    with actor.full_weights() as model:
        rollout = TransformersRollout(model, tokenizer.eos_id, tokenizer.pad_id)
        drawn = rollout.generate(
            [prompts[item].ids for item in mine],
            [(config.run.seed, step, prompts[item].row, item) for item in mine],
            config.sampling,
        )
    parts = ranks.gather((list(mine), drawn))
    samples = {
        item: Sample(prompts[item], tokens, finished, logprobs)
        for items, rollouts in parts
        for item, tokens, logprobs, finished in zip(
            items, rollouts.tokens, rollouts.logprobs, rollouts.finished, strict=True
        )
    }
    return [samples[item] for item in range(len(prompts))]


def map_samples(
    samples: Sequence[Sample], ranks: Ranks, micro_tokens: int, read: Callable[[PackedRow], Tensor]
) -> list[Floats]:
    """`read` over packed rows of all samples, shared among ranks; its numbers at response tokens, by sample."""
    sequences = [sample.sequence for sample in samples]
    plan = plan_micro_batches([len(each) for each in sequences], micro_tokens, ranks.world_size)
    found: dict[int, Floats] = {}
    for items in plan[ranks.rank]:
        numbers = read(pack_sequences([sequences[item] for item in items])).float().cpu().numpy()
        ends = np.cumsum([len(samples[item].response) for item in items])
        found |= dict(zip(items, np.split(numbers, ends), strict=False))  # the last part is empty
    return _everywhere(ranks, found, len(samples))


def score_samples(
    samples: Sequence[Sample],
    reward: InferenceModel,
    tokenizer: ChatTokenizer,
    scorer: ChatTokenizer,
    config: PpoConfig,
) -> list[float]:
    """The reward model's score of each answer, read at its last token.

    Ids are taken as they are when both tokenizers render alike, and rendered anew from text when they do not.
    """
    ranks = reward.ranks
    if scorer is tokenizer or scorer.fingerprint() == tokenizer.fingerprint():  # hashing a vocabulary is not free
        trees = [(sample.prompt.ids, [sample.response]) for sample in samples]
    else:
        trees = [_rendered(sample, tokenizer, scorer, config.sampling.max_prompt_tokens) for sample in samples]
    lengths = [len(prompt) + len(answers[0]) for prompt, answers in trees]
    plan = plan_micro_batches(lengths, max(config.train.micro_tokens, *lengths), ranks.world_size)
    found: dict[int, float] = {}
    for items in plan[ranks.rank]:
        numbers = reward.forward(pack_trees([trees[item] for item in items])).tolist()
        found |= dict(zip(items, numbers, strict=bool(items)))
    return _everywhere(ranks, found, len(samples))


def _rendered(
    sample: Sample, tokenizer: ChatTokenizer, scorer: ChatTokenizer, max_prompt_tokens: int
) -> tuple[Ids, list[Ids]]:
    """Prompt and answer in the reward model's own template; EOS only where the answer had one."""
    prompt = Encoder(scorer, max_prompt_tokens).prompts([Prompt(sample.prompt.messages)])[0]
    (answer,) = scorer.token_ids([tokenizer.text(sample.response.tolist()) or " "])
    ending = [scorer.eos_id] if sample.finished else []
    return prompt.ids, [np.asarray(answer + ending, np.int32)]


def _everywhere(ranks: Ranks, found: dict[int, Floats] | dict[int, float], count: int) -> list:
    merged = {item: value for part in ranks.gather(found) for item, value in part.items()}
    return [merged[item] for item in range(count)]


def gather_experience(
    samples: Sequence[Sample],
    roles: Roles,
    tokenizers: tuple[ChatTokenizer, ChatTokenizer],
    config: PpoConfig,
    kl_coefficient: float,
) -> Experience:
    """Steps 3 to 6 of an iteration: log-probabilities, values and scores; rewards; advantages; whitening."""
    ranks, budget, ppo = roles.actor.ranks, config.train.micro_tokens, config.ppo
    temperature = config.sampling.temperature

    # 3. the reference's log-probabilities, the critic's values, the reward's scores
    def reference_logprobs(row: PackedRow) -> Tensor:
        logits = roles.reference.forward(row)
        return token_logprobs(logits, row.labels.to(logits.device), temperature=temperature)

    reference = map_samples(samples, ranks, budget, reference_logprobs)
    values = map_samples(samples, ranks, budget, roles.critic.infer)
    scores = score_samples(samples, roles.reward, *tokenizers, config)

    # 4. token rewards: the KL penalty everywhere, the score at the end
    mask = response_mask(samples)
    old = padded([sample.old_logprobs for sample in samples], mask)
    kl = kl_estimate(old, padded(reference, mask), mask, kind=ppo.kl_estimator)
    finished = torch.tensor([sample.finished for sample in samples])
    rewards = token_rewards(
        torch.tensor(scores),
        kl,
        mask,
        finished,
        kl_coefficient=kl_coefficient,
        score_clip=ppo.score_clip,
        missing_eos_penalty=ppo.missing_eos_penalty,
    )
    # 5. advantages
    value_table = padded(values, mask)
    estimated = gae(rewards, value_table, mask, gamma=ppo.gamma, lam=ppo.lam)
    # 6. whitened with moments over the whole iteration, all ranks included
    advantages = whitened(estimated.advantages, mask) if ppo.whiten_advantages else estimated.advantages

    lengths = [len(sample.response) for sample in samples]
    done = [
        replace(
            sample,
            score=float(scores[row]),
            reference_logprobs=reference[row],
            values=values[row],
            advantages=advantages[row, : lengths[row]].numpy(),
            returns=estimated.returns[row, : lengths[row]].numpy(),
        )
        for row, sample in enumerate(samples)
    ]
    returns = estimated.returns[mask]
    residual = (estimated.returns - value_table)[mask]
    metrics = {
        "reward": float(np.mean(scores)),
        "reward_std": float(np.std(scores)),
        "kl": float(kl_estimate(old, padded(reference, mask), mask, kind="k1").sum(1).mean()),
        "eos_rate": float(finished.float().mean()),
        "entropy": float(-old[mask].mean()),
        "response_tokens": float(np.mean(lengths)),
        "explained_variance": float(1 - residual.var(unbiased=False) / returns.var(unbiased=False).clamp(min=1e-8)),
    }
    return Experience(done, metrics)


def whitened(advantages: Tensor, mask: Tensor) -> Tensor:
    """[B, T] with mean 0 and variance 1 over the mask; the table holds every rank's samples, so these are global."""
    mean = masked_mean(advantages, mask)
    variance = squared_deviation_sum(advantages, mask, mean) / mask.sum()
    return whiten(advantages, mask, mean=mean, variance=variance)


def response_mask(samples: Sequence[Sample]) -> Tensor:
    """[B, T] bool, True = response token of the sample, left-aligned."""
    lengths = torch.tensor([len(sample.response) for sample in samples])
    return torch.arange(int(lengths.max()))[None, :] < lengths[:, None]


def padded(rows: Sequence[Floats], mask: Tensor) -> Tensor:
    """Ragged rows as a [B, T] table, 0 outside the mask."""
    table = torch.zeros(mask.shape)
    table[mask] = torch.from_numpy(np.concatenate(rows))
    return table
