"""What an iteration learns from: epochs of minibatches, in each one optimizer step of the roles that learn."""

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
from rlhf.ops.losses import kl_loss, largest_ratio, policy_loss, value_loss
from rlhf.ops.masking import masked_sum
from rlhf.ops.rewards import kl_estimate
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample
from rlhf.train.run.lifecycle import require_finite

Rates = Mapping[str, float]


@dataclass(slots=True)
class Demonstrations:
    """Demonstrations for PPO-ptx, in an order of their own; `consumed` of them were used."""

    items: Sequence[EncodedSequence]
    stream: RowStream
    consumed: int = 0

    def take(self) -> list[EncodedSequence]:
        """The next minibatch of them."""
        rows = self.stream.batch(self.consumed, limit=False)
        self.consumed += len(rows)
        return [self.items[row] for row in rows]


def learning_rates(config: PpoConfig, factor: float, step: int) -> dict[str, float]:
    """Rates of the roles that learn in iteration `step`; in ppo.value_warmup_steps the critic alone."""
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
    """All epochs of one iteration; the order of samples is drawn from (seed, step, epoch).

    Metrics are means over minibatches, `ratio_max` the largest of them and `epochs_done` how many epochs were run:
    none follows one whose mean approx_kl is above ppo.max_kl_per_iteration.
    """
    rates, limit = learning_rates(config, factor, step), config.ppo.max_kl_per_iteration
    taught = demonstrations if "actor" in rates else None
    found: list[dict[str, float]] = []
    if taught is not None:
        found.append({"ptx_grad_norm": demonstration_norm(roles, taught, config)})
    for epoch in range(config.ppo.epochs):
        order = np.random.default_rng((config.run.seed, step, epoch)).permutation(len(samples))
        moved = []
        for first in range(0, len(samples), config.train.batch_size):
            batch = [samples[item] for item in order[first : first + config.train.batch_size]]
            shown = taught.take() if taught is not None else []
            metrics = minibatch(roles, batch, config, rates, step, kl_coefficient=kl_coefficient, demonstrations=shown)
            moved.append(metrics.get("approx_kl", 0.0))
            found.append({**metrics, "epochs_done": epoch + 1})
        if limit is not None and float(np.mean(moved)) > limit:
            break
    return _summed_up(found)


def _summed_up(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    combined: dict[str, Callable[[list[float]], Any]] = {"ratio_max": max, "epochs_done": max}
    names = dict.fromkeys(name for metrics in found for name in metrics)
    values = {name: [metrics[name] for metrics in found if name in metrics] for name in names}
    return {name: float(combined.get(name, np.mean)(numbers)) for name, numbers in values.items()}


@dataclass(slots=True)
class Tally:
    """Sums over this rank's micro-batches, by name."""

    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, **parts: Tensor) -> None:
        """Adds scalars []; every rank is to add the same names in the same order."""
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

    `kl_coefficient` weighs the KL estimate in the loss, where ppo.kl_in puts it there.
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
            ratio = max(ratio, _teach_actor(roles, row, chosen, num_tokens, config, kl_coefficient, tally))
        if "critic" in rates:
            _teach_critic(roles, row, chosen, num_tokens, config, tally)
    if demonstrations:
        tally.add(ptx_loss=_demonstrate(roles, demonstrations, config))
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


def _teach_actor(
    roles: Roles,
    row: PackedRow,
    chosen: Sequence[Sample],
    num_tokens: Tensor,
    config: PpoConfig,
    kl_coefficient: float,
    tally: Tally,
) -> float:
    """Backward of one row's policy loss, with entropy and KL where they are in it; its largest ratio."""
    ppo, temperature, mask = config.ppo, config.sampling.temperature, row.weights > 0
    found = roles.actor.logprobs(row, temperature, with_entropy=ppo.entropy_weight > 0)
    logprobs = found.logprobs
    old = _column([sample.old_logprobs for sample in chosen], mask)
    advantages = _column([sample.advantages for sample in chosen], mask)
    policy = policy_loss(logprobs, old, advantages, mask, num_tokens, clip=ppo.clip)
    loss = policy.loss
    if ppo.entropy_weight:
        loss = loss - ppo.entropy_weight * masked_sum(found.entropy, mask) / num_tokens
    if ppo.kl_in == "loss":
        reference = _column([sample.reference_logprobs for sample in chosen], mask)
        kl = kl_estimate(logprobs, reference, mask, kind=ppo.kl_estimator)
        cost = kl_loss(kl, mask, num_tokens, coefficient=kl_coefficient)
        loss = loss + cost
        tally.add(kl_loss=cost)
    roles.actor.backward(loss)
    tally.add(policy_loss=loss, clip_fraction=policy.clip_fraction, approx_kl=policy.approx_kl)
    return largest_ratio(logprobs, old, mask)


def _teach_critic(
    roles: Roles, row: PackedRow, chosen: Sequence[Sample], num_tokens: Tensor, config: PpoConfig, tally: Tally
) -> None:
    """Backward of one row's value loss."""
    assert roles.critic is not None
    mask = row.weights > 0
    value = value_loss(
        roles.critic.forward(row),
        _column([sample.values for sample in chosen], mask),
        _column([sample.returns for sample in chosen], mask),
        mask,
        num_tokens,
        clip=config.ppo.value_clip,
    )
    roles.critic.backward(value.loss)
    tally.add(value_loss=value.loss, value_clip_fraction=value.clip_fraction)


def _demonstrate(roles: Roles, items: Sequence[EncodedSequence], config: PpoConfig) -> Tensor:
    """Backward of ppo.ptx_weight times the mean cross-entropy; this rank's share of that mean [], nats a token."""
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
    """Norm of the gradient of the PPO-ptx term alone, on the minibatch that comes next; nothing moves.

    It takes a forward and a backward pass more, once an iteration.
    """
    coming = Demonstrations(demonstrations.items, demonstrations.stream, demonstrations.consumed)
    roles.actor.train()
    _demonstrate(roles, coming.take(), config)
    return roles.step({})["actor"].grad_norm


def _column(arrays: Sequence[Any], mask: Tensor) -> Tensor:
    """Per-sample arrays one after another, as the row's positions are; zeros for an idle row."""
    if not arrays:
        return torch.zeros(mask.shape, device=mask.device)
    return torch.from_numpy(np.concatenate(arrays)).float().to(mask.device)
