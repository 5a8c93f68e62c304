"""The updates of one PPO iteration: epochs of minibatches, one optimizer step of the trained roles in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.config.schema import PpoConfig
from rlhf.data.encode import EncodedSequence
from rlhf.data.loader import RowStream
from rlhf.data.packing import PackedRow, pack_sequences, plan_micro_batches
from rlhf.engine.ranks import Ranks
from rlhf.ops.losses import entropy_bonus, kl_loss, largest_ratio, policy_loss, value_loss
from rlhf.ops.rewards import kl_estimate
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample
from rlhf.train.run.lifecycle import require_finite

Rates = Mapping[str, float]


@dataclass(slots=True)
class Demonstrations:
    """Demonstrations for PPO-ptx in an order of their own, of which `consumed` are used."""

    items: Sequence[EncodedSequence]
    stream: RowStream
    consumed: int = 0

    def take(self) -> list[EncodedSequence]:
        """The next minibatch of demonstrations."""
        rows = self.stream.batch(self.consumed, limit=False)
        self.consumed += len(rows)
        return [self.items[row] for row in rows]


def learning_rates(config: PpoConfig, factor: float, step: int) -> dict[str, float]:
    """Learning rates of the roles that are trained in iteration `step`: the critic alone in ppo.value_warmup_steps."""
    rates = {"actor": config.train.lr * factor, "critic": config.critic.lr * factor}
    if config.ppo.estimator != "gae":
        del rates["critic"]
    elif step <= config.ppo.value_warmup_steps:
        del rates["actor"]
    return rates


def update(
    roles: Roles,
    samples: Sequence[Sample],
    config: PpoConfig,
    factor: float,
    step: int,
    *,
    kl_coefficient: float = 0.0,
    demonstrations: Demonstrations | None = None,
) -> dict[str, float]:
    """All epochs of one iteration, which ends early after an epoch whose mean approx_kl is above
    ppo.max_kl_per_iteration.

    Metrics are means over minibatches, except `ratio_max`, the largest, and `epochs_done`, the number of epochs run.
    """
    rates, limit = learning_rates(config, factor, step), config.ppo.max_kl_per_iteration
    if "actor" not in rates:
        demonstrations = None
    found: list[dict[str, float]] = []
    if demonstrations is not None:
        found.append({"ptx_grad_norm": demonstration_norm(roles, demonstrations, config)})
    for epoch in range(config.ppo.epochs):
        order, epoch_kl = epoch_order(len(samples), config.run.seed, step, epoch), []
        for first in range(0, len(samples), config.train.batch_size):
            batch = [samples[item] for item in order[first : first + config.train.batch_size]]
            ptx = demonstrations.take() if demonstrations is not None else []
            metrics = minibatch(roles, batch, config, rates, step, kl_coefficient=kl_coefficient, demonstrations=ptx)
            epoch_kl.append(metrics.get("approx_kl", 0.0))
            found.append({**metrics, "epochs_done": epoch + 1})
        if limit is not None and float(np.mean(epoch_kl)) > limit:
            break
    return _combined(found)


def epoch_order(num_samples: int, seed: int, step: int, epoch: int) -> list[int]:
    """The order of samples in an epoch: a permutation seeded by all three numbers, the same on every rank."""
    return [int(item) for item in np.random.default_rng((seed, step, epoch)).permutation(num_samples)]


def _combined(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    combined: dict[str, Callable[[list[float]], Any]] = {"ratio_max": max, "epochs_done": max}
    names = dict.fromkeys(name for metrics in found for name in metrics)
    values = {name: [metrics[name] for metrics in found if name in metrics] for name in names}
    return {name: float(combined.get(name, np.mean)(numbers)) for name, numbers in values.items()}


@dataclass(slots=True)
class Tally:
    """Sums over this rank's micro-batches by name."""

    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, **parts: Tensor) -> None:
        """Adds scalars []; every rank must add the same names in the same order."""
        for name, part in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + part.detach().double()

    def totals(self, ranks: Ranks) -> dict[str, float]:
        """Sums over all ranks."""
        return dict(zip(self.sums, ranks.global_sum(*self.sums.values()), strict=True))


def minibatch(
    roles: Roles,
    batch: Sequence[Sample],
    config: PpoConfig,
    rates: Rates,
    step: int,
    *,
    kl_coefficient: float = 0.0,
    demonstrations: Sequence[EncodedSequence] = (),
) -> dict[str, float]:
    """One optimizer step of the roles in `rates`; every rank is given the whole minibatch and runs its share.

    `kl_coefficient` is the weight of the KL estimate in the loss, with ppo.kl_in = loss.
    """
    ranks = roles.actor.ranks
    sequences = [sample.sequence for sample in batch]
    plan = plan_micro_batches([len(each) for each in sequences], config.train.micro_tokens, ranks.world_size)
    num_tokens = torch.tensor(float(sum(len(sample.response) for sample in batch)), device=ranks.device)
    tally, ratio = Tally(), 0.0
    for role in filter(None, (roles.actor, roles.critic)):
        role.train()
    for items in plan[ranks.rank]:
        row = pack_sequences([sequences[item] for item in items]).to(ranks.device)
        chosen = [batch[item] for item in items]
        if "actor" in rates:
            largest = _policy_backward(roles, row, chosen, num_tokens, config, kl_coefficient, tally)
            ratio = max(ratio, largest)
        if "critic" in rates:
            _value_backward(roles, row, chosen, num_tokens, config, tally)
    if demonstrations:
        tally.add(ptx_loss=_ptx_backward(roles, demonstrations, config))
    totals = tally.totals(ranks)
    losses = totals.get("policy_loss", 0.0) + totals.get("value_loss", 0.0)
    loss = losses + config.ppo.ptx_weight * totals.get("ptx_loss", 0.0)
    require_finite(loss, step)
    outcomes = roles.step(rates)
    metrics = {"loss": loss, **totals, "tokens": float(sum(map(len, [*sequences, *demonstrations])))}
    if "actor" in rates:
        metrics |= {"ratio_max": max(ranks.gather(ratio)), "lr": rates["actor"]}
        metrics["grad_norm"] = outcomes["actor"].grad_norm
    if "critic" in rates:
        metrics["critic_grad_norm"] = outcomes["critic"].grad_norm
    return metrics


def _policy_backward(
    roles: Roles,
    row: PackedRow,
    chosen: Sequence[Sample],
    num_tokens: Tensor,
    config: PpoConfig,
    kl_coefficient: float,
    tally: Tally,
) -> float:
    """Backward of one row's policy loss, less the entropy bonus and plus the KL loss where they are used; the largest
    ratio of the row."""
    ppo, temperature, mask = config.ppo, config.sampling.temperature, row.weights > 0
    found = roles.actor.logprobs(row, temperature, with_entropy=ppo.entropy_weight > 0)
    logprobs = found.logprobs
    old = _row_numbers([sample.old_logprobs for sample in chosen], mask)
    advantages = _row_numbers([sample.advantages for sample in chosen], mask)
    policy = policy_loss(logprobs, old, advantages, mask, num_tokens, clip=ppo.clip)
    total = policy.loss
    if ppo.entropy_weight:
        total = total - entropy_bonus(found.entropy, mask, num_tokens, weight=ppo.entropy_weight)
    if ppo.kl_in == "loss":
        reference = _row_numbers([sample.reference_logprobs for sample in chosen], mask)
        kl = kl_estimate(logprobs, reference, mask, kind=ppo.kl_estimator)
        penalty = kl_loss(kl, mask, num_tokens, coefficient=kl_coefficient)
        total = total + penalty
        tally.add(kl_loss=penalty)
    roles.actor.backward(total)
    tally.add(policy_loss=total, clip_fraction=policy.clip_fraction, approx_kl=policy.approx_kl)
    return largest_ratio(logprobs, old, mask)


def _value_backward(
    roles: Roles, row: PackedRow, chosen: Sequence[Sample], num_tokens: Tensor, config: PpoConfig, tally: Tally
) -> None:
    """Backward of one row's value loss."""
    assert roles.critic is not None
    mask = row.weights > 0
    value = value_loss(
        roles.critic.forward(row),
        _row_numbers([sample.values for sample in chosen], mask),
        _row_numbers([sample.returns for sample in chosen], mask),
        mask,
        num_tokens,
        clip=config.ppo.value_clip,
    )
    roles.critic.backward(value.loss)
    tally.add(value_loss=value.loss, value_clip_fraction=value.clip_fraction)


def _ptx_backward(roles: Roles, items: Sequence[EncodedSequence], config: PpoConfig) -> Tensor:
    """Backward of ppo.ptx_weight times the mean cross-entropy; this rank's share of that mean [], nats per token."""
    ranks = roles.actor.ranks
    plan = plan_micro_batches([len(item) for item in items], config.train.micro_tokens, ranks.world_size)
    rows = [pack_sequences([items[item] for item in numbers]).to(ranks.device) for numbers in plan[ranks.rank]]
    (weight,) = ranks.global_sum(sum(float(row.weights.sum()) for row in rows))
    share = torch.zeros((), dtype=torch.float64, device=ranks.device)
    for row in rows:
        nats = roles.actor.loss(row, weight).loss
        roles.actor.backward(config.ppo.ptx_weight * nats)
        share += nats.detach().double()
    return share


def demonstration_norm(roles: Roles, demonstrations: Demonstrations, config: PpoConfig) -> float:
    """Norm of the gradient of the PPO-ptx term alone, on the next minibatch; no weight changes.

    It costs one more forward and backward pass per iteration.
    """
    upcoming = Demonstrations(demonstrations.items, demonstrations.stream, demonstrations.consumed)
    roles.actor.train()
    _ptx_backward(roles, upcoming.take(), config)
    return roles.step({})["actor"].grad_norm


def _row_numbers(arrays: Sequence[Any], mask: Tensor) -> Tensor:
    """Per-sample arrays one after another, in the order of the row's positions; zeros for an idle row."""
    if not arrays:
        return torch.zeros(mask.shape, device=mask.device)
    return torch.from_numpy(np.concatenate(arrays)).float().to(mask.device)
