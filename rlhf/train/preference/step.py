"""A step of preference optimisation: the loss of a configuration, and one update on a global batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlhf.config.preference import DpoSection
from rlhf.config.schema import DpoConfig
from rlhf.data.packing import plan_micro_batches
from rlhf.engine.deepspeed import TrainedModel
from rlhf.engine.rows import RowModel
from rlhf.ops.preference import (
    PreferenceLoss,
    imitation_loss,
    implicit_rewards,
    ipo_loss,
    kto_loss,
    kto_reference_point,
    normalised_rewards,
    sigmoid_loss,
)
from rlhf.train.preference.reference import tree_logprobs
from rlhf.train.preference.rows import ReferencedRow, logprob_table, pack_compared
from rlhf.train.run.lifecycle import require_finite
from rlhf.train.schedules import Schedule


def preference_loss(
    dpo: DpoSection, logprobs: Tensor, tables: Mapping[str, Tensor], count: Tensor, kl: Tensor
) -> PreferenceLoss:
    """The loss that the configuration names, of a table of log-probabilities [B, K] in nats.

    Args:
        tables: as `compared_tables` makes them.
        count: rankings over the global batch, [] (kto: answers).
        kl: reference point of kto in nats, [].
    """
    ranks, mask, beta = tables["ranks"], tables["mask"], dpo.strength
    if dpo.loss == "simpo":
        rewards = normalised_rewards(logprobs, tables["lengths"], mask, beta=beta)
        margin, smoothing = dpo.target_margin, dpo.label_smoothing
        return sigmoid_loss(rewards, ranks, mask, count, margin=margin, smoothing=smoothing)
    rewards = implicit_rewards(logprobs, tables["references"], mask, beta=beta)
    match dpo.loss:
        case "sigmoid":
            return sigmoid_loss(rewards, ranks, mask, count, smoothing=dpo.label_smoothing)
        case "ipo":
            return ipo_loss(rewards, ranks, mask, count, beta=beta)
        case "kto":
            weights = {"good_weight": dpo.good_weight, "bad_weight": dpo.bad_weight}
            return kto_loss(rewards, tables["best"], mask, kl, count, beta=beta, **weights)


def num_compared(dpo: DpoSection, rows: Sequence[ReferencedRow]) -> int:
    """What the loss of these rows is divided by."""
    return sum(len(row.item.answers) for row in rows) if dpo.loss == "kto" else len(rows)


def reference_point(model: RowModel, rows: Sequence[ReferencedRow], micro_tokens: int) -> float:
    """KTO's reference point of a global batch in nats, on every rank; no weight changes."""
    trees = [row.other for row in rows if row.other is not None]
    found = tree_logprobs(model, trees, micro_tokens)
    total = sum(logprob - row.other_reference for (logprob,), row in zip(found, rows, strict=True))
    return kto_reference_point(total, len(trees))


def preference_step(
    trained: TrainedModel, batch: Sequence[ReferencedRow], config: DpoConfig, schedule: Schedule, step: int
) -> dict[str, float]:
    """One optimizer step on a global batch of prompts; every rank is given all of it and runs its share."""
    ranks, dpo, micro_tokens = trained.ranks, config.dpo, config.train.micro_tokens
    # 1. the reference point of KTO, from answers to other prompts
    kl = reference_point(trained, batch, micro_tokens) if dpo.loss == "kto" else 0.0
    # 2. micro-batches of whole prompts, and the global denominators; every rank computes the same
    plan = plan_micro_batches([len(row) for row in batch], micro_tokens, ranks.world_size)
    best_tokens = sum(row.best_tokens for row in batch)
    numbers = {"count": num_compared(dpo, batch), "tokens": max(1, best_tokens), "kl": kl}
    given = {name: torch.full((), float(value), device=ranks.device) for name, value in numbers.items()}
    # 3. forward and backward
    sums = torch.zeros(len(PreferenceLoss._fields) + 1, dtype=torch.float64, device=ranks.device)
    for items in plan[ranks.rank]:
        row = pack_compared([batch[item] for item in items]).to(ranks.device)
        logprobs = logprob_table(trained.logprobs(row, 1.0).logprobs, row)
        found = preference_loss(dpo, logprobs, row.carried, given["count"], given["kl"])
        imitation = imitation_loss(logprobs, row.carried["best"], given["tokens"])
        trained.backward(found.loss + dpo.sft_weight * imitation)
        sums += torch.stack([*found, imitation]).detach().double()
    # 4. stop before the weights change if the loss is not finite
    *totals, imitation_total = ranks.global_sum(*sums)
    loss = totals[0] + dpo.sft_weight * imitation_total
    require_finite(loss, step)
    # 5. update
    lr = config.train.lr * schedule.factor(step)
    outcome = trained.step(lr)
    metrics = {"loss": loss, **summary(totals)}
    if best_tokens:
        metrics["preference/best_nll"] = imitation_total
    if dpo.loss == "kto":
        metrics["preference/reference_point"] = kl
    counts = {"tokens": sum(map(len, batch)), "batch/num_rankings": len(batch)}
    return {**metrics, "lr": lr, "grad_norm": outcome.grad_norm, **counts}


def summary(totals: Sequence[float]) -> dict[str, float]:
    """Means by name, of a `PreferenceLoss` as numbers; a side without an answer has no mean, as in a batch of KTO with
    good answers alone."""
    _, num_correct, num_compared, *sides, num_chosen, num_rejected = totals
    found = {"preference/accuracy": num_correct / max(1.0, num_compared)}
    names = ("preference/chosen_reward", "preference/rejected_reward")
    for name, total, count in zip(names, sides, (num_chosen, num_rejected), strict=True):
        if count:
            found[name] = total / count
    if num_chosen and num_rejected:
        found["preference/margin"] = found["preference/chosen_reward"] - found["preference/rejected_reward"]
    return found
