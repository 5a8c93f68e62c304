"""Stage 1: supervised fine-tuning on demonstrations, cross-entropy on answers and their EOS."""

from __future__ import annotations

import operator
import time
from collections.abc import Sequence
from typing import Any

import torch

from rlhf.config.schema import LanguageConfig, SftConfig
from rlhf.config.sections import SourceSection
from rlhf.data.encode import EncodedPrompt, EncodedSequence, Encoder
from rlhf.data.packing import pack_sequences, plan_micro_batches
from rlhf.data.records import Demonstration, prompt_of
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.doctor.proofs_head import model_head_proof
from rlhf.engine.deepspeed import TrainedModel
from rlhf.ops.neftune import embedding_noise
from rlhf.rollout.transformers import TransformersRollout
from rlhf.train.inputs import LoadedRows, load_first, load_train_and_eval
from rlhf.train.models import starting_points
from rlhf.train.opening import opened_model, trained_language_model
from rlhf.train.run.fast_paths import require_proved, start_fast_paths
from rlhf.train.run.lifecycle import (
    end_if_asked,
    export,
    is_due,
    load_best,
    metrics_log,
    require_exportable,
    require_finite,
    restore,
    save,
    write_manifest,
)
from rlhf.train.run.progress import EvaluatedProgress
from rlhf.train.run.run import Run
from rlhf.train.schedules import Schedule, schedule_of
from rlhf.train.source_loss import SourceLoss, source_names

PROGRESS_METRICS = ("loss", "eval/loss", "lr", "grad_norm", "time/tokens_per_s")


def train_sft(run: Run[SftConfig]) -> None:
    """The whole stage: data, model, steps, evaluation, checkpoints, export."""
    config = run.config
    path, tokenizer = opened_model(run)
    train, held_out, prompts = _load_data(run, tokenizer)
    stream = train.stream(seed=config.run.seed, batch_size=config.train.batch_size, epochs=config.train.epochs)
    schedule, last = schedule_of(config.train, stream.num_steps), run.last_step(stream.num_steps)

    start_fast_paths(run, {"model": path})
    trained = trained_language_model(run, path, tokenizer)
    require_exportable(run, trained)
    roles, sources = {"model": trained}, source_names(train.items)
    write_manifest(
        run, tokenizer, starting_points(config.model, path), {"train": train.reports, "eval": held_out.reports}
    )
    progress = restore(run, roles, EvaluatedProgress())

    if run.step < last:
        require_proved(run, [model_head_proof(trained, train.items[0])])
    with metrics_log(run, last, PROGRESS_METRICS) as log:
        first: dict[str, float] = {}
        if held_out.items and run.step == 0:
            first = {"eval/loss_before": evaluate_sft(trained, held_out.items, config)["eval/loss"]}
            log.say(f"held-out loss before training {first['eval/loss_before']:.4f}")
        trained.train()
        while run.step < last and progress.has_patience(config.eval.patience):
            step, started = run.step + 1, time.perf_counter()
            rows = stream.batch(progress.consumed)
            metrics = sft_step(trained, [train.items[row] for row in rows], config, schedule, step, sources)
            metrics |= {"time/step_s": (elapsed := time.perf_counter() - started)}
            metrics |= {"time/tokens_per_s": metrics["tokens"] / elapsed, **first}
            first = {}
            progress.consumed += len(rows)
            run.step, improved = step, False
            if held_out.items and is_due(step, config.eval.every_steps or stream.steps_per_epoch, last):
                with trained.averaged():
                    metrics |= evaluate_sft(trained, held_out.items, config)
                improved = progress.record(metrics["eval/loss"], step, operator.lt)
            end = last if progress.has_patience(config.eval.patience) else step
            log.log(step, metrics)
            if prompts and is_due(step, config.log.samples_every_steps, end):
                with trained.averaged():
                    log.samples(step, sample_answers(trained, tokenizer, prompts, config))
            if improved or is_due(step, config.checkpoint.every_steps, end):
                save(run, roles, progress, best=improved)
            end_if_asked(run, roles, progress)
        log.say(progress.closing_line(run.step, config.eval.patience, "best held-out loss"))
    load_best(run, trained)
    probe = pack_sequences([train.items[row] for row in stream.batch(0)[:2]])
    with trained.averaged():
        export(run, trained, tokenizer, probe, base_path=path)


def sft_step(
    trained: TrainedModel,
    batch: Sequence[EncodedSequence],
    config: SftConfig,
    schedule: Schedule,
    step: int,
    sources: Sequence[str] = (),
) -> dict[str, float]:
    """One optimizer step on a global batch; every rank is given all of it and runs its share.

    `sources` are those of the whole run (default: of this batch); each has a loss of its own in the metrics.
    """
    ranks, weight = trained.ranks, config.train.prompt_loss_weight
    # 1. micro-batches; every rank computes the same plan
    plan = plan_micro_batches([len(item) for item in batch], config.train.micro_tokens, ranks.world_size)
    packed = [[batch[i] for i in items] for items in plan[ranks.rank]]
    rows = [pack_sequences(items, prompt_weight=weight) for items in packed]
    # 2. the global denominator
    (total,) = ranks.global_sum(sum(float(row.weights.sum()) for row in rows))
    # 3. forward and backward
    losses = SourceLoss(sources or source_names(batch), ranks)
    for row, items, places in zip(rows, packed, plan[ranks.rank], strict=True):
        noise = _noise(trained, items, places, config, step)
        labelled = losses.labelled(row, items)
        moved = (labelled if noise is None else labelled.carrying(noise=noise)).to(ranks.device)
        loss = trained.loss(moved, total, noise=moved.carried.get("noise"))
        trained.backward(loss.loss)
        losses.add(loss.nll, moved)
    # 4. stop before the weights change if the loss is not finite
    means = losses.means("loss")
    require_finite(means["loss"], step)
    # 5. update
    lr = config.train.lr * schedule.factor(step)
    outcome = trained.step(lr)
    answer_tokens = sum(int(item.answer_mask[1:].sum()) for item in batch)
    counts = {"tokens": sum(map(len, batch)), "batch/answer_tokens": answer_tokens}
    return {**means, "lr": lr, "grad_norm": outcome.grad_norm, **counts}


def _noise(
    trained: TrainedModel, items: Sequence[EncodedSequence], places: Sequence[int], config: SftConfig, step: int
) -> torch.Tensor | None:
    """NEFTune's noise for a row of items with these places in the global batch; None when it is off."""
    alpha = config.train.neftune_alpha
    if not alpha:
        return None
    width: int = trained.model.model.get_input_embeddings().embedding_dim
    return embedding_noise([len(item) for item in items], places, width, alpha=alpha, seed=config.run.seed, step=step)


def evaluate_sft(trained: TrainedModel, items: Sequence[EncodedSequence], config: SftConfig) -> dict[str, float]:
    """Mean negative log-likelihood of held-out answer tokens in nats, over all sources and by source."""
    ranks = trained.ranks
    plan = plan_micro_batches([len(item) for item in items], config.train.micro_tokens, ranks.world_size)
    losses = SourceLoss(source_names(items), ranks)
    for numbers in plan[ranks.rank]:
        packed = [items[number] for number in numbers]
        row = losses.labelled(pack_sequences(packed), packed).to(ranks.device)
        losses.add(trained.infer_loss(row).nll, row)
    return losses.means("eval/loss")


def sample_answers(
    trained: TrainedModel, tokenizer: ChatTokenizer, prompts: Sequence[EncodedPrompt], config: LanguageConfig
) -> list[dict[str, Any]]:
    """Answers to the first held-out prompts, sampled on rank 0 with the weights gathered from all ranks."""
    with trained.full_weights() as model:
        if not trained.ranks.is_main:
            return []
        rollout = TransformersRollout(model, tokenizer.eos_id, tokenizer.text)
        drawn = rollout.generate(
            [prompt.ids for prompt in prompts], [(config.run.seed, p.row) for p in prompts], config.sampling
        )
    return [
        {"prompt": prompt.text, "answer": tokenizer.text(ids.tolist()), "finished": ended}
        for prompt, ids, ended in zip(prompts, drawn.tokens, drawn.finished, strict=True)
    ]


def _load_data(
    run: Run[SftConfig], tokenizer: ChatTokenizer
) -> tuple[LoadedRows[EncodedSequence], LoadedRows[EncodedSequence], list[EncodedPrompt]]:
    data = run.config.data
    encoder = Encoder(tokenizer, data.max_length, data.train_on, data.learn_tool_calls)
    (train, summary), (held_out, held_out_summary) = load_train_and_eval(
        run.config, Demonstration, encoder, lambda each: each.demonstrations
    )
    run.say(f"train: {summary}")
    without = "no data.eval: no held-out loss, and the last checkpoint is exported"
    run.say(f"eval:  {held_out_summary}" if data.eval else without)
    return train, held_out, _sample_prompts(run, tokenizer, (data.eval or data.train)[0])


def _sample_prompts(run: Run[SftConfig], tokenizer: ChatTokenizer, source: SourceSection) -> list[EncodedPrompt]:
    """The first prompts of the data, to be answered during training."""
    encoder = Encoder(tokenizer, run.config.sampling.max_prompt_tokens)

    def encode(records: Sequence[Demonstration]) -> list[EncodedPrompt]:
        return encoder.prompts([prompt_of(record) for record in records])

    return load_first(run.config.data, source, Demonstration, encode, run.config.log.num_samples)
