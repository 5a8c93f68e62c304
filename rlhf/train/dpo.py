"""Preference optimisation (DPO, IPO, SimPO, KTO): a policy from the data of stage 2, without a reward model."""

from __future__ import annotations

import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.config.schema import DpoConfig
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import Tree, pack_trees, trees_of
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.doctor.proofs_head import model_head_proof
from rlhf.engine.deepspeed import TrainedModel
from rlhf.engine.start import StartingWeights
from rlhf.train.models import starting_points
from rlhf.train.opening import opened_model, trained_language_model
from rlhf.train.preference.data import PreferenceData, answers_of_others, load_preferences
from rlhf.train.preference.evaluation import evaluate_preferences, sampled_kl
from rlhf.train.preference.reference import Logprobs, reference_logprobs
from rlhf.train.preference.rows import Compared, ReferencedRow
from rlhf.train.preference.step import preference_step
from rlhf.train.run.fast_paths import require_proved, start_fast_paths
from rlhf.train.run.lifecycle import (
    end_if_asked,
    export,
    is_due,
    load_best,
    metrics_log,
    require_exportable,
    restore,
    save,
    write_manifest,
)
from rlhf.train.run.progress import EvaluatedProgress
from rlhf.train.run.run import Run
from rlhf.train.schedules import schedule_of
from rlhf.train.sft import sample_answers

PROGRESS_METRICS = ("loss", "preference/accuracy", "preference/margin", "eval/accuracy", "eval/kl", "lr", "grad_norm")


@dataclass(slots=True)
class PreferenceProgress(EvaluatedProgress):
    """Also the KL at the last evaluation, in nats per sequence."""

    last_kl: float = 0.0

    def goes_on(self, config: DpoConfig) -> bool:
        """Whether neither patience nor the limit of the KL ends the run."""
        limit = config.dpo.max_kl
        return self.has_patience(config.eval.patience) and (limit is None or self.last_kl <= limit)


@dataclass(frozen=True, slots=True)
class PreferenceState:
    """What the steps read: the model, rows by their number with the reference's log-probabilities, its weights."""

    trained: TrainedModel
    tokenizer: ChatTokenizer
    train: dict[int, ReferencedRow]
    held_out: list[ReferencedRow]
    data: PreferenceData
    start: StartingWeights | None


def train_dpo(run: Run[DpoConfig]) -> None:
    """The whole stage: data, the reference's log-probabilities, steps, evaluation, checkpoints, export."""
    config = run.config
    path, tokenizer = opened_model(run)
    data = load_preferences(run, tokenizer)
    stream = data.train.stream(seed=config.run.seed, batch_size=config.train.batch_size, epochs=config.train.epochs)
    schedule, last = schedule_of(config.train, stream.num_steps), run.last_step(stream.num_steps)

    start_fast_paths(run, {"model": path})
    trained = trained_language_model(run, path, tokenizer)
    require_exportable(run, trained)
    reports = {"train": data.train.reports, "eval": data.held_out.reports}
    write_manifest(run, tokenizer, starting_points(config.model, path), reports)
    if run.step < last:
        require_proved(run, [model_head_proof(trained, _sequence(data.train.items[0]))])
    # The weights are still the reference's.
    used: Sequence[int] = range(len(data.train.items))
    if run.dry_run and not config.dpo.reference_from:  # what is read from another run is of all rows
        used = sorted({row for step in range(last) for row in stream.batch(step * config.train.batch_size)})
    state = _with_reference(run, trained, tokenizer, data, used)
    roles = {"model": trained}
    progress = restore(run, roles, PreferenceProgress())

    with metrics_log(run, last, PROGRESS_METRICS) as log:
        trained.train()
        while run.step < last and progress.goes_on(config):
            step, started = run.step + 1, time.perf_counter()
            rows = stream.batch(progress.consumed)
            metrics = preference_step(trained, [state.train[row] for row in rows], config, schedule, step)
            metrics |= {"time/step_s": (elapsed := time.perf_counter() - started)}
            metrics["time/rankings_per_s"] = len(rows) / elapsed
            progress.consumed += len(rows)
            run.step, improved = step, False
            if is_due(step, config.eval.every_steps or stream.steps_per_epoch, last):
                metrics |= evaluate(run, state)
                progress.last_kl = metrics.get("eval/kl", 0.0)
                if "eval/preference_loss" in metrics and progress.goes_on(config):
                    improved = progress.record(metrics["eval/preference_loss"], step, operator.lt)
            end = last if progress.goes_on(config) else step
            log.log(step, metrics)
            if is_due(step, config.log.samples_every_steps, end):
                with trained.averaged():
                    shown = data.prompts[: config.log.num_samples]
                    log.samples(step, sample_answers(trained, tokenizer, shown, config))
            if improved or is_due(step, config.checkpoint.every_steps, end):
                save(run, roles, progress, best=improved)
            end_if_asked(run, roles, progress)
        log.say(progress.closing_line(run.step, config.eval.patience, "lowest held-out loss"))
    _finish(run, state, progress, path)


def evaluate(run: Run[DpoConfig], state: PreferenceState) -> dict[str, float]:
    """Figures of the held-out rows, and the KL of answers to the first prompts."""
    config, metrics = run.config, dict[str, float]()
    if state.held_out:
        with state.trained.averaged():
            metrics |= evaluate_preferences(state.trained, state.held_out, config)
    if state.start is not None:
        asked = state.data.prompts[: config.dpo.kl_prompts]
        metrics["eval/kl"] = sampled_kl(state.trained, state.start, state.tokenizer, asked, config)
    return metrics


def _sequence(item: Compared) -> EncodedSequence:
    """A prompt with its first answer."""
    ids = np.concatenate([item.prompt, item.answers[0]])
    return EncodedSequence(ids, np.arange(len(ids)) >= len(item.prompt))


def _with_reference(
    run: Run[DpoConfig], trained: TrainedModel, tokenizer: ChatTokenizer, data: PreferenceData, used: Sequence[int]
) -> PreferenceState:
    """The rows with their reference, and the weights it has, before any of them is trained or restored."""
    config, start = run.config, None
    if config.dpo.kl_prompts:
        start = trained.starting_weights(run.folder.reference)
    train: list[Compared] = [data.train.items[row] for row in used]
    held_out: list[Compared] = list(data.held_out.items)
    groups = {"train": trees_of(train), "eval": trees_of(held_out)}
    others: dict[str, list[Tree]] = {}
    if config.dpo.loss == "kto":
        length = config.data.max_length
        others = {"train_other": answers_of_others(train, length), "eval_other": answers_of_others(held_out, length)}
    found: dict[str, Logprobs] = {}
    if config.dpo.has_reference:
        found = reference_logprobs(run, trained, {**groups, **others})
    rows = {
        name: _referenced(items, found.get(name), others.get(f"{name}_other"), found.get(f"{name}_other"))
        for name, items in (("train", train), ("eval", held_out))
    }
    numbered = dict(zip(used, rows["train"], strict=True))
    return PreferenceState(trained, tokenizer, numbered, rows["eval"], data, start)


def _referenced(
    items: Sequence[Compared],
    logprobs: Logprobs | None,
    others: Sequence[Tree] | None,
    other_logprobs: Logprobs | None,
) -> list[ReferencedRow]:
    """Rows; without log-probabilities of a reference they are 0, and not read."""
    known = logprobs or [(0.0,) * len(item.answers) for item in items]
    if others is None or other_logprobs is None:
        return [ReferencedRow(item, own) for item, own in zip(items, known, strict=True)]
    return [
        ReferencedRow(item, own, other, of_other)
        for item, own, other, (of_other,) in zip(items, known, others, other_logprobs, strict=True)
    ]


def _finish(run: Run[DpoConfig], state: PreferenceState, progress: PreferenceProgress, path: str) -> None:
    """Says why the run ended early, and exports the best checkpoint."""
    limit, kl, trained = run.config.dpo.max_kl, progress.last_kl, state.trained
    if limit is not None and kl > limit:
        run.reason = f"The KL of {kl:.2f} nats per sequence at step {run.step} is above dpo.max_kl."
        if run.store.best() is None:
            run.reason += " No evaluation before it was below, so these weights are exported; lower train.lr."
        run.say(run.reason)
    load_best(run, trained)
    probe = pack_trees(trees_of(state.data.train.items[:1]))
    with trained.averaged():
        export(run, trained, state.tokenizer, probe, base_path=path)
    if state.start is not None:
        state.start.remove()
