"""Stage 3: PPO actor-critic. One step is one iteration: a rollout and all the updates made from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rlhf.config.schema import PpoConfig
from rlhf.data.encode import EncodedPrompt, EncodedSequence, Encoder
from rlhf.data.packing import pack_sequences, plan_micro_batches
from rlhf.data.records import Prompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.ops.logprobs import entropy, token_logprobs
from rlhf.ops.losses import policy_loss, value_loss
from rlhf.ops.masking import masked_sum
from rlhf.train.controllers import KlController, Schedule, schedule_of
from rlhf.train.experience import Sample, draw_answers, gather_experience, score_samples
from rlhf.train.inputs import Loaded, encode_summary, fresh_report, load
from rlhf.train.lifecycle import export, is_due, metrics_log, require_finite, restore, save, write_manifest
from rlhf.train.metrics import MetricsLog
from rlhf.train.roles import Roles, build_separate, role_paths, role_tokenizers
from rlhf.train.run import Run

SHOWN = ("reward", "kl", "eos_rate", "policy_loss", "value_loss", "clip_fraction", "samples_per_s")
EVAL_STEP = 2**31  # names the random streams of evaluation apart from those of training


@dataclass(slots=True)
class Progress:
    """Everything a resumed run needs beside weights and optimizers."""

    consumed: int = 0
    kl_coefficient: float = 0.0


def train_ppo(run: Run[PpoConfig]) -> None:
    """The whole stage: prompts, four roles, iterations, evaluation, checkpoints, export of the actor."""
    config, ppo = run.config, run.config.ppo
    paths = role_paths(config)
    tokenizers = role_tokenizers(config, paths)
    tokenizer = tokenizers[0]
    prompts, held_out = _load_prompts(run, tokenizer)
    stream = prompts.stream(seed=config.run.seed, batch_size=ppo.rollout_size, epochs=config.train.epochs)
    schedule, last = schedule_of(config.train, stream.num_steps), run.last_step(stream.num_steps)
    roles = build_separate(run, paths, *tokenizers)
    progress = restore(run, roles.trained(), Progress(kl_coefficient=ppo.kl_coefficient))
    controller = KlController(progress.kl_coefficient, ppo.kl_target, ppo.kl_horizon)
    parents = {"actor": paths.actor, "reference": paths.reference, "reward": paths.reward, "critic": paths.critic}
    write_manifest(run, tokenizer, parents, {"train": prompts.reports, "eval": held_out.reports})

    with metrics_log(run, last, SHOWN) as log:
        while run.step < last:
            step, started = run.step + 1, time.perf_counter()
            # 1. prompts
            rows = stream.batch(progress.consumed)
            # 2. answers, with the log-probabilities of the distribution that drew them
            samples = draw_answers(roles.actor, tokenizer, [prompts.items[row] for row in rows], config, step)
            rollout_s = time.perf_counter() - started
            # 3.-6. reference, values, scores; token rewards; advantages; whitening
            experience = gather_experience(samples, roles, tokenizers, config, controller.coefficient)
            # 7. several epochs of minibatches
            updates = update(roles, experience.samples, config, schedule, step)
            # 8. the KL coefficient follows
            metrics = {**experience.metrics, **updates, "kl_coefficient": controller.coefficient}
            controller.update(metrics["kl"], len(samples))
            elapsed = time.perf_counter() - started
            metrics |= {"step_s": elapsed, "rollout_s": rollout_s, "samples_per_s": len(samples) / elapsed}
            progress.consumed, progress.kl_coefficient = progress.consumed + len(rows), controller.coefficient
            run.step = step
            if held_out.items and is_due(step, config.eval.every_steps or config.log.samples_every_steps, last):
                metrics |= evaluate(run, roles, tokenizers, held_out.items, log)
            log.log(step, metrics)
            if is_due(step, config.checkpoint.every_steps, last):
                save(run, roles.trained(), progress)
    if run.dry_run:
        roles.actor.load(run.store.require_latest().path / "actor")
    probe = pack_sequences([_probe(prompts.items[0], tokenizer)])
    export(run, roles.actor, tokenizer, probe, base_path=paths.actor)


def update(
    roles: Roles, samples: Sequence[Sample], config: PpoConfig, schedule: Schedule, step: int
) -> dict[str, float]:
    """All epochs of one iteration; the order of samples is drawn from (seed, step, epoch)."""
    totals: dict[str, list[float]] = {}
    for epoch in range(config.ppo.epochs):
        order = np.random.default_rng((config.run.seed, step, epoch)).permutation(len(samples))
        for first in range(0, len(samples), config.train.batch_size):
            batch = [samples[item] for item in order[first : first + config.train.batch_size]]
            for name, value in minibatch(roles, batch, config, schedule.factor(step), step).items():
                totals.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in totals.items()}


def minibatch(roles: Roles, batch: Sequence[Sample], config: PpoConfig, factor: float, step: int) -> dict[str, float]:
    """One optimizer step of actor and critic; every rank is given the whole minibatch and runs its share."""
    ranks, ppo = roles.actor.ranks, config.ppo
    sequences = [sample.sequence for sample in batch]
    plan = plan_micro_batches([len(each) for each in sequences], config.train.micro_tokens, ranks.world_size)
    num_tokens = torch.tensor(float(sum(len(sample.response) for sample in batch)), device=ranks.device)
    sums = torch.zeros(5, dtype=torch.float64, device=ranks.device)
    roles.actor.train()
    roles.critic.train()
    for items in plan[ranks.rank]:
        row = pack_sequences([sequences[item] for item in items]).to(ranks.device)
        chosen = [batch[item] for item in items]
        mask = row.weights > 0
        # policy
        logits = roles.actor.forward(row)
        logprobs = token_logprobs(logits, row.labels, temperature=config.sampling.temperature)
        policy = policy_loss(
            logprobs,
            _column([s.old_logprobs for s in chosen], mask),
            _column([s.advantages for s in chosen], mask),
            mask,
            num_tokens,
            clip=ppo.clip,
        )
        loss = policy.loss
        if ppo.entropy_weight:
            spread = entropy(logits, temperature=config.sampling.temperature)
            loss = loss - ppo.entropy_weight * masked_sum(spread, mask) / num_tokens
        roles.actor.backward(loss)
        # value
        value = value_loss(
            roles.critic.forward(row),
            _column([s.values for s in chosen], mask),
            _column([s.returns for s in chosen], mask),
            mask,
            num_tokens,
            clip=ppo.value_clip,
        )
        roles.critic.backward(value.loss)
        parts = (loss, value.loss, policy.clip_fraction, policy.approx_kl, value.clip_fraction)
        sums += torch.stack([part.detach().double() for part in parts])
    policy_mean, value_mean, clipped, moved, value_clipped = ranks.global_sum(*sums)
    require_finite(policy_mean + value_mean, step)
    actor = roles.actor.step(config.train.lr * factor)
    critic = roles.critic.step(config.critic.lr * factor)
    return {
        "loss": policy_mean + ppo.value_weight * value_mean,
        "policy_loss": policy_mean,
        "value_loss": value_mean,
        "clip_fraction": clipped,
        "approx_kl": moved,
        "value_clip_fraction": value_clipped,
        "lr": config.train.lr * factor,
        "grad_norm": actor.grad_norm,
        "critic_grad_norm": critic.grad_norm,
        "tokens": float(sum(map(len, sequences))),
    }


def _column(arrays: Sequence[Any], mask: torch.Tensor) -> torch.Tensor:
    """Per-sample arrays one after another, as the row's positions are; zeros for an idle row."""
    if not arrays:
        return torch.zeros(mask.shape, device=mask.device)
    return torch.from_numpy(np.concatenate(arrays)).float().to(mask.device)


def evaluate(
    run: Run[PpoConfig],
    roles: Roles,
    tokenizers: tuple[ChatTokenizer, ChatTokenizer],
    prompts: Sequence[EncodedPrompt],
    log: MetricsLog,
) -> dict[str, float]:
    """Score and EOS rate on held-out prompts, answered with the same draws every time."""
    config = run.config
    samples = draw_answers(roles.actor, tokenizers[0], prompts, config, EVAL_STEP)
    scores = score_samples(samples, roles.reward, *tokenizers, config)
    rows = [
        {
            "prompt": sample.prompt.text,
            "answer": tokenizers[0].text(sample.response.tolist()),
            "finished": sample.finished,
            "score": score,
            "source": sample.prompt.source,
        }
        for sample, score in zip(samples, scores, strict=True)
    ]
    log.samples(run.step, rows[: config.log.num_samples])
    return {
        "eval_reward": float(np.mean(scores)),
        "eval_eos_rate": float(np.mean([sample.finished for sample in samples])),
    }


def _probe(prompt: EncodedPrompt, tokenizer: ChatTokenizer) -> EncodedSequence:
    """A prompt and EOS: enough to compare two models' numbers."""
    ids = np.append(prompt.ids, np.int32(tokenizer.eos_id))
    return Sample(prompt, ids[-1:], True, np.zeros(1, np.float32)).sequence


def _load_prompts(run: Run[PpoConfig], tokenizer: ChatTokenizer) -> tuple[Loaded[EncodedPrompt], Loaded[EncodedPrompt]]:
    data, limit = run.config.data, run.config.sampling.max_prompt_tokens
    encoder = Encoder(tokenizer, limit)
    train = load(data, data.train, Prompt, encoder.prompts, key="data.train")
    run.say(f"prompts: {encode_summary(encoder)}")
    if not data.eval:
        return train, Loaded([], (), (), [])
    encoder = fresh_report(encoder)
    return train, load(data, data.eval, Prompt, encoder.prompts, key="data.eval", limit=run.config.eval.max_rows)
