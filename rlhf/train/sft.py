"""Stage 1: supervised fine-tuning on demonstrations, cross-entropy on answers and their EOS."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlhf.config.schema import SftConfig
from rlhf.config.sections import SourceSection
from rlhf.data.encode import EncodedPrompt, EncodedSequence, Encoder
from rlhf.data.packing import PackedRow, pack_sequences, plan_micro_batches
from rlhf.data.records import Demonstration, prompt_of
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.deepspeed import TrainedModel
from rlhf.models.loading import artifact_model_path, check_model_path
from rlhf.ops.losses import cross_entropy
from rlhf.rollout.transformers import TransformersRollout
from rlhf.train.controllers import Schedule, schedule_of
from rlhf.train.inputs import Loaded, encode_summary, fresh_report, load, read_first
from rlhf.train.lifecycle import export, is_due, load_best, metrics_log, require_finite, restore, save, write_manifest
from rlhf.train.models import build_causal_lm, make_trainable
from rlhf.train.run import Run

SHOWN = ("loss", "eval_loss", "lr", "grad_norm", "tokens_per_s")


@dataclass(slots=True)
class Progress:
    """Everything a resumed run needs beside weights and optimizer."""

    consumed: int = 0
    best_loss: float = math.inf
    best_step: int = 0


def train_sft(run: Run[SftConfig]) -> None:
    """The whole stage: data, model, steps, evaluation, checkpoints, export."""
    config, ranks = run.config, run.ranks
    path = artifact_model_path(config.model.path)
    check_model_path(path, key="model.path")
    tokenizer = load_tokenizer(path, config.data.template)
    train, held_out, prompts = _load_data(run, tokenizer)
    stream = train.stream(seed=config.run.seed, batch_size=config.train.batch_size, epochs=config.train.epochs)
    schedule, last = schedule_of(config.train, stream.num_steps), run.last_step(stream.num_steps)

    wrapped = build_causal_lm(path, config.model, config.deepspeed, ranks, tokenizer, key="model.path")
    make_trainable(wrapped, config.model, run.say)
    trained = TrainedModel(wrapped, config.train, config.deepspeed, ranks, dtype=config.model.dtype)
    roles = {"model": trained}
    progress = restore(run, roles, Progress())
    write_manifest(run, tokenizer, {"base": path}, {"train": train.reports, "eval": held_out.reports})

    with metrics_log(run, last, SHOWN) as log:
        first: dict[str, float] = {}
        if held_out.items and run.step == 0:
            first = {"eval_loss_before": evaluate_sft(trained, held_out.items, config)["eval_loss"]}
            log.say(f"held-out loss before training {first['eval_loss_before']:.4f}")
        trained.train()
        while run.step < last:
            step, started = run.step + 1, time.perf_counter()
            rows = stream.batch(progress.consumed)
            metrics = sft_step(trained, [train.items[row] for row in rows], config, schedule, step)
            elapsed = time.perf_counter() - started
            metrics |= {"step_s": elapsed, "tokens_per_s": metrics["tokens"] / elapsed, **first}
            first = {}
            progress.consumed += len(rows)
            run.step = step
            improved = False
            if held_out.items and is_due(step, config.eval.every_steps or stream.steps_per_epoch, last):
                metrics |= evaluate_sft(trained, held_out.items, config)
                improved = metrics["eval_loss"] < progress.best_loss
                if improved:
                    progress.best_loss, progress.best_step = metrics["eval_loss"], step
            log.log(step, metrics)
            if prompts and is_due(step, config.log.samples_every_steps, last):
                log.samples(step, sample_answers(trained, tokenizer, prompts, config))
            if improved or is_due(step, config.checkpoint.every_steps, last):
                save(run, roles, progress, best=improved)
        log.say(_closing_line(run, progress))
    load_best(run, trained)
    probe = pack_sequences([train.items[row] for row in stream.batch(0)[:2]])
    export(run, trained, tokenizer, probe, base_path=path)


def sft_step(
    trained: TrainedModel, batch: Sequence[EncodedSequence], config: SftConfig, schedule: Schedule, step: int
) -> dict[str, float]:
    """One optimizer step on a global batch; every rank is given all of it and runs its share."""
    ranks, weight = trained.ranks, config.train.prompt_loss_weight
    # 1. micro-batches, planned alike on every rank
    plan = plan_micro_batches([len(item) for item in batch], config.train.micro_tokens, ranks.world_size)
    rows = [pack_sequences([batch[i] for i in items], prompt_weight=weight) for items in plan[ranks.rank]]
    # 2. the global denominator
    (total,) = ranks.global_sum(sum(float(row.weights.sum()) for row in rows))
    # 3. forward and backward
    loss = torch.zeros((), device=ranks.device)
    for row in rows:
        loss += _row_loss(trained, row, total)
    # 4. a loss that is not finite stops before the weights change
    (mean,) = ranks.global_sum(loss)
    require_finite(mean, step)
    # 5. update
    lr = config.train.lr * schedule.factor(step)
    outcome = trained.step(lr)
    tokens = sum(len(item) for item in batch)
    return {"loss": mean, "lr": lr, "grad_norm": outcome.grad_norm, "tokens": tokens}


def _row_loss(trained: TrainedModel, row: PackedRow, total: float) -> torch.Tensor:
    """This row's share of the mean loss, after its backward pass."""
    logits = trained.forward(row)
    device = logits.device
    denominator = torch.tensor(total, device=device)
    entropy = cross_entropy(logits, row.labels.to(device), row.weights.to(device), denominator)
    trained.backward(entropy.loss)
    return entropy.loss.detach()


def evaluate_sft(trained: TrainedModel, items: Sequence[EncodedSequence], config: SftConfig) -> dict[str, float]:
    """Mean negative log-likelihood of held-out answer tokens, in nats."""
    ranks = trained.ranks
    plan = plan_micro_batches([len(item) for item in items], config.train.micro_tokens, ranks.world_size)
    nll, count = 0.0, 0.0
    one = torch.ones((), device=ranks.device)
    for numbers in plan[ranks.rank]:
        row = pack_sequences([items[number] for number in numbers])
        logits = trained.infer(row)
        weights = (row.weights > 0).float().to(logits.device)
        nll += float(cross_entropy(logits, row.labels.to(logits.device), weights, one).loss)
        count += float(weights.sum())
    nll, count = ranks.global_sum(nll, count)
    return {"eval_loss": nll / max(count, 1.0)}


def sample_answers(
    trained: TrainedModel, tokenizer: ChatTokenizer, prompts: Sequence[EncodedPrompt], config: SftConfig
) -> list[dict[str, Any]]:
    """Answers to the first held-out prompts; drawn on rank 0 while the others lend their weights."""
    with trained.full_weights() as model:
        if not trained.ranks.is_main:
            return []
        rollout = TransformersRollout(model, tokenizer.eos_id, tokenizer.pad_id)
        drawn = rollout.generate(
            [prompt.ids for prompt in prompts], [(config.run.seed, p.row) for p in prompts], config.sampling
        )
    return [
        {"prompt": prompt.text, "answer": tokenizer.text(ids.tolist()), "finished": ended}
        for prompt, ids, ended in zip(prompts, drawn.tokens, drawn.finished, strict=True)
    ]


def _load_data(
    run: Run[SftConfig], tokenizer: ChatTokenizer
) -> tuple[Loaded[EncodedSequence], Loaded[EncodedSequence], list[EncodedPrompt]]:
    data = run.config.data
    encoder = Encoder(tokenizer, data.max_length)
    train = load(data, data.train, Demonstration, encoder.demonstrations, key="data.train")
    run.say(f"train: {encode_summary(encoder)}")
    if not data.eval:
        run.say("no data.eval: no held-out loss, and the last checkpoint is exported")
        return train, Loaded([], (), (), []), _sample_prompts(run, tokenizer, data.train[0])
    encoder = fresh_report(encoder)
    limit = run.config.eval.max_rows
    held_out = load(data, data.eval, Demonstration, encoder.demonstrations, key="data.eval", limit=limit)
    run.say(f"eval:  {encode_summary(encoder)}")
    return train, held_out, _sample_prompts(run, tokenizer, data.eval[0])


def _sample_prompts(run: Run[SftConfig], tokenizer: ChatTokenizer, source: SourceSection) -> list[EncodedPrompt]:
    """The first prompts of the data, to be answered while training goes on."""
    records = read_first(run.config.data, source, Demonstration, run.config.log.num_samples)
    return Encoder(tokenizer, run.config.sampling.max_prompt_tokens).prompts([prompt_of(row) for row in records])


def _closing_line(run: Run[SftConfig], progress: Progress) -> str:
    if not progress.best_step:
        return f"trained {run.step} steps"
    return f"trained {run.step} steps; best held-out loss {progress.best_loss:.4f} after step {progress.best_step}"
