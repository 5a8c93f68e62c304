"""The updates of one PPO iteration: epochs of minibatches, one optimizer step of the trained roles in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.config.ppo import PpoConfig
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
LOSS_TERMS = ("policy/loss", "policy/entropy_loss", "policy/kl_loss", "value/loss", "policy/ptx_loss")
COMBINED: dict[str, Callable[[list[float]], Any]] = {"policy/ratio_max": max, "policy/epochs_done": max}


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

    Metrics are means over minibatches, except the names in COMBINED: the largest ratio and the number of epochs run.
    """
    rates, limit = learning_rates(config, factor, step), config.ppo.max_kl_per_iteration
    if "actor" not in rates:
        demonstrations = None
    found: list[dict[str, float]] = []
    if demonstrations is not None:
        found.append({"policy/ptx_grad_norm": demonstration_norm(roles, demonstrations, config)})
    for epoch in range(config.ppo.epochs):
        order, epoch_kl = epoch_order(len(samples), config.run.seed, step, epoch), []
        for first in range(0, len(samples), config.train.batch_size):
            batch = [samples[item] for item in order[first : first + config.train.batch_size]]
            ptx = demonstrations.take() if demonstrations is not None else []
            metrics = minibatch(roles, batch, config, rates, step, kl_coefficient=kl_coefficient, demonstrations=ptx)
            epoch_kl.append(metrics.get("policy/approx_kl", 0.0))
            found.append({**metrics, "policy/epochs_done": epoch + 1})
        if limit is not None and float(np.mean(epoch_kl)) > limit:
            break
    return _combined(found)


def epoch_order(num_samples: int, seed: int, step: int, epoch: int) -> list[int]:
    """The order of samples in an epoch: a permutation seeded by all three numbers, the same on every rank."""
    return [int(item) for item in np.random.default_rng((seed, step, epoch)).permutation(num_samples)]


def _combined(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for metrics in found for name in metrics)
    values = {name: [metrics[name] for metrics in found if name in metrics] for name in names}
    return {name: float(COMBINED.get(name, np.mean)(numbers)) for name, numbers in values.items()}


@dataclass(slots=True)
class Tally:
    """Sums over this rank's micro-batches by name, and the largest ratio of a token; all stay on the device."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    ratio: Tensor | None = None

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Adds scalars [] by name; every rank must add the same names in the same order."""
        for name, part in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + part.detach().double()

    def note_ratio(self, ratio: Tensor) -> None:
        """Keeps the largest of the ratios []."""
        self.ratio = ratio if self.ratio is None else torch.maximum(self.ratio, ratio)

    def totals(self, ranks: Ranks) -> dict[str, float]:
        """Sums over all ranks, and as policy/ratio_max the largest ratio of all, by one collective and one read."""
        if self.ratio is None:
            return dict(zip(self.sums, ranks.global_sum(*self.sums.values()), strict=True))
        own = [self.ratio if rank == ranks.rank else 0.0 for rank in range(ranks.world_size)]  # a place for each rank
        found = ranks.global_sum(*self.sums.values(), *own)
        totals = dict(zip(self.sums, found, strict=False))
        return {**totals, "policy/ratio_max": max(found[len(totals) :])}


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
    num_tokens = torch.full((), float(sum(len(sample.response) for sample in batch)), device=ranks.device)
    tally = Tally()
    for role in filter(None, (roles.actor, roles.critic)):
        role.train()
    for items in plan[ranks.rank]:
        row = experience_row([batch[item] for item in items], _columns(rates, config)).to(ranks.device)
        if "actor" in rates:
            _policy_backward(roles, row, num_tokens, config, kl_coefficient, tally)
        if "critic" in rates:
            _value_backward(roles, row, num_tokens, config, tally)
    if demonstrations:
        tally.add({"policy/ptx_loss": _ptx_backward(roles, demonstrations, config)})
    totals = tally.totals(ranks)
    weights = {"policy/ptx_loss": config.ppo.ptx_weight}
    loss = sum(weights.get(name, 1.0) * totals.get(name, 0.0) for name in LOSS_TERMS)
    require_finite(loss, step)
    outcomes = roles.step(rates)
    metrics = {"loss": loss, **totals, "tokens": float(sum(map(len, [*sequences, *demonstrations])))}
    if "actor" in rates:
        metrics |= {"lr": rates["actor"], "grad_norm": outcomes["actor"].grad_norm}
    if "critic" in rates:
        metrics |= {"value/lr": rates["critic"], "value/grad_norm": outcomes["critic"].grad_norm}
    return metrics


def _columns(rates: Rates, config: PpoConfig) -> list[str]:
    """The fields of samples that the losses of these roles read."""
    policy = ["old_logprobs", "advantages", *(["reference_logprobs"] if config.ppo.kl_in == "loss" else [])]
    return [*(policy if "actor" in rates else []), *(["values", "returns"] if "critic" in rates else [])]


def experience_row(samples: Sequence[Sample], columns: Sequence[str]) -> PackedRow:
    """Samples as one packed row on the host, carrying their `columns`, [P] float32 each; zeros in an idle row."""
    row = pack_sequences([sample.sequence for sample in samples])
    if not samples:
        return row.carrying(**{name: torch.zeros_like(row.weights) for name in columns})
    joined = {name: np.concatenate([getattr(sample, name) for sample in samples]) for name in columns}
    return row.carrying(**{name: torch.from_numpy(numbers).float() for name, numbers in joined.items()})


def _policy_backward(
    roles: Roles, row: PackedRow, num_tokens: Tensor, config: PpoConfig, kl_coefficient: float, tally: Tally
) -> None:
    """Backward of one row's policy loss, less the entropy bonus and plus the KL loss where they are used."""
    ppo, temperature, mask = config.ppo, config.sampling.temperature, row.weights > 0
    found = roles.actor.logprobs(row, temperature, with_entropy=ppo.entropy_weight > 0)
    logprobs = found.logprobs
    old = row.carried["old_logprobs"]
    policy = policy_loss(
        logprobs,
        old,
        row.carried["advantages"],
        mask,
        num_tokens,
        clip=ppo.clip,
        clip_high=ppo.clip_high,
        dual_clip=ppo.dual_clip,
    )
    terms = {"policy/loss": policy.loss}
    if ppo.entropy_weight:
        terms["policy/entropy_loss"] = -entropy_bonus(found.entropy, mask, num_tokens, weight=ppo.entropy_weight)
    if ppo.kl_in == "loss":
        kl = kl_estimate(logprobs, row.carried["reference_logprobs"], mask, kind=ppo.kl_estimator)
        terms["policy/kl_loss"] = kl_loss(kl, mask, num_tokens, coefficient=kl_coefficient)
    roles.actor.backward(torch.stack(list(terms.values())).sum())
    clipped = {
        "policy/clip_fraction": policy.clip_fraction,
        "policy/clip_fraction_low": policy.low_clip_fraction,
        "policy/clip_fraction_high": policy.high_clip_fraction,
    }
    if ppo.dual_clip is not None:
        clipped["policy/clip_fraction_dual"] = policy.dual_clip_fraction
    tally.add({**terms, **clipped, "policy/approx_kl": policy.approx_kl})
    tally.note_ratio(largest_ratio(logprobs, old, mask))


def _value_backward(roles: Roles, row: PackedRow, num_tokens: Tensor, config: PpoConfig, tally: Tally) -> None:
    """Backward of one row's value loss."""
    assert roles.critic is not None
    mask = row.weights > 0
    value = value_loss(
        roles.critic.forward(row),
        row.carried["values"],
        row.carried["returns"],
        mask,
        num_tokens,
        clip=config.ppo.value_clip,
    )
    roles.critic.backward(value.loss)
    tally.add({"value/loss": value.loss, "value/clip_fraction": value.clip_fraction})


def _ptx_backward(roles: Roles, items: Sequence[EncodedSequence], config: PpoConfig) -> Tensor:
    """Backward of ppo.ptx_weight times the mean cross-entropy; this rank's share of that mean [], nats per token."""
    ranks = roles.actor.ranks
    plan = plan_micro_batches([len(item) for item in items], config.train.micro_tokens, ranks.world_size)
    rows = [pack_sequences([items[item] for item in numbers]) for numbers in plan[ranks.rank]]
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
