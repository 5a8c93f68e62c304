"""Stage 3: PPO actor-critic, or policy gradients without a critic. One step is one iteration: a rollout and all the
updates made from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from rlhf.config.role_paths import RolePaths
from rlhf.config.schema import PpoConfig
from rlhf.data.encode import EncodedPrompt, EncodedSequence, Encoder
from rlhf.data.loader import RowStream
from rlhf.data.packing import pack_sequences
from rlhf.data.records import Demonstration, Prompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import TrainingError
from rlhf.ops.moments import Moments
from rlhf.rollout.vllm import VllmRollout, require_vllm, start_engine
from rlhf.train.head_check import check_head
from rlhf.train.inputs import LoadedRows, encode_summary, fresh_report, load
from rlhf.train.policy.build_roles import build_roles, checked_paths, role_tokenizers
from rlhf.train.policy.control_group import run_control
from rlhf.train.policy.experience import corrected, draw_answers, gather_experience
from rlhf.train.policy.reward_sources import RewardSources, check_sources, text_sources
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample
from rlhf.train.policy.tripwire_monitor import TripwireMonitor
from rlhf.train.policy.update import Demonstrations, update
from rlhf.train.run.lifecycle import end_if_asked, is_due, metrics_log, restore, save, write_manifest
from rlhf.train.run.metrics import MetricsLog
from rlhf.train.run.run import Run
from rlhf.train.schedules import KlController, Schedule, schedule_of

SHOWN = ("reward", "kl", "eos_rate", "policy_loss", "value_loss", "clip_fraction", "samples_per_s")
EVAL_STEP = 2**31  # names the random streams of evaluation apart from those of training


@dataclass(slots=True)
class PpoProgress:
    """Everything a resumed run needs beside weights and optimizers.

    consumed, ptx_consumed: prompts and demonstrations used; score_moments: those of the scores (ppo.score_normalise);
    watch: what the tripwires remember.
    """

    consumed: int = 0
    kl_coefficient: float = 0.0
    score_moments: list[float] = field(default_factory=lambda: list(Moments()))
    ptx_consumed: int = 0
    watch: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run works on: its data, what was read of it (by train, eval, ptx), and the order in which it is used."""

    prompts: LoadedRows[EncodedPrompt]
    held_out: LoadedRows[EncodedPrompt]
    demonstrations: Demonstrations | None
    reports: dict[str, list[dict[str, Any]]]
    stream: RowStream
    schedule: Schedule
    last: int


@dataclass(frozen=True, slots=True)
class PpoState:
    """All that an iteration touches."""

    material: TrainingData
    paths: RolePaths
    roles: Roles
    sources: RewardSources
    watch: TripwireMonitor
    progress: PpoProgress
    controller: KlController
    engine: VllmRollout | None = None


def train_ppo(run: Run[PpoConfig]) -> None:
    """The whole stage: prompts, roles, iterations, evaluation, checkpoints, export of the actor."""
    stage, config = prepare(run), run.config
    last, held_out, watch = stage.material.last, stage.material.held_out.items, stage.watch
    if run.step < last:
        check_head(stage.roles.actor, _probe(stage.material.prompts.items[0], stage.sources.tokenizers[0]))
    with metrics_log(run, last, SHOWN) as log:
        while run.step < last and not watch.stopped:
            step = run.step + 1
            # 1.-8. prompts, answers, rewards, advantages, updates
            metrics = iteration(run, stage, step)
            run.step = step
            # 9. tripwires
            watch.observe(step, metrics, log.say)
            stage.progress.watch = watch.state
            # 10. held-out prompts
            due = is_due(step, config.eval.every_steps or config.log.samples_every_steps, last) or watch.stopped
            if held_out and due and not watch.goes_back:
                with _completed_work_saved(run, stage, partial(log.log, step, metrics)):
                    metrics |= evaluate(run, stage.roles, stage.sources, held_out, log)
            # 11. log, and a checkpoint or the way back to one
            log.log(step, metrics)
            if watch.goes_back:
                stage = _at(stage, watch.roll_back(stage.roles, PpoProgress()))
            elif watch.stopped or is_due(step, config.checkpoint.every_steps, last):
                save(run, stage.roles.trained(), stage.progress)
            end_if_asked(run, stage.roles.trained(), stage.progress)
    _finish(run, stage)


def prepare(run: Run[PpoConfig]) -> PpoState:
    """Sources asked, data read, roles built and brought to where the run stood."""
    config = run.config
    paths = checked_paths(config)
    require_vllm(config.rollout.backend)
    tokenizers = role_tokenizers(config, paths)
    texts = text_sources(config.reward)
    check_sources(texts, run.ranks)
    material = _load_material(run, tokenizers[0])
    watch = TripwireMonitor(run, tokenizers[0])
    roles = build_roles(run, paths, *tokenizers)
    sources = RewardSources(config, run.ranks, tokenizers, roles.reward, texts)
    named = {"actor": paths.actor, "reference": paths.reference, "reward": paths.reward, "critic": paths.critic}
    parents = {role: path for role, path in named.items() if path is not None}
    write_manifest(run, tokenizers[0], parents, material.reports)
    progress = restore(run, roles.trained(), PpoProgress(kl_coefficient=config.ppo.kl_coefficient))
    watch.resume(progress.watch)
    controller = KlController(progress.kl_coefficient, config.ppo.kl_target, config.ppo.kl_horizon)
    engine = None
    if config.rollout.backend == "vllm":
        longest = config.sampling.max_prompt_tokens + config.sampling.max_new_tokens
        engine = start_engine(paths.actor, config.rollout, dtype=config.model.dtype, max_length=longest)
    return _at(PpoState(material, paths, roles, sources, watch, progress, controller, engine), progress)


def _at(stage: PpoState, progress: PpoProgress) -> PpoState:
    """The stage where `progress` stands; weights and the tripwires are there already."""
    if stage.material.demonstrations is not None:
        stage.material.demonstrations.consumed = progress.ptx_consumed
    controller = replace(stage.controller, coefficient=progress.kl_coefficient)
    return replace(stage, progress=progress, controller=controller)


def iteration(run: Run[PpoConfig], stage: PpoState, step: int) -> dict[str, float]:
    """A rollout and all the updates made from it; its metrics. `stage.progress` then says that it is complete."""
    config, material, progress = run.config, stage.material, stage.progress
    started, coefficient = time.perf_counter(), stage.controller.coefficient
    # 1. prompts, each as often as it is to be answered
    rows = material.stream.batch(progress.consumed)
    asked = [material.prompts.items[row] for row in rows for _ in range(config.ppo.answers_per_prompt)]
    # 2. answers, with the log-probabilities of the distribution that drew them
    samples = draw_answers(stage.roles.actor, stage.sources.tokenizers[0], asked, config, step, stage.engine)
    gaps: dict[str, float] = {}
    if stage.engine is not None:
        samples, gaps = corrected(samples, stage.roles, config)
    rollout_s = time.perf_counter() - started
    # 3.-6. reference, values, scores; token rewards; advantages; whitening
    moments = Moments(*progress.score_moments)
    with _completed_work_saved(run, stage):
        experience = gather_experience(samples, stage.roles, stage.sources, config, coefficient, moments)
    # 7. several epochs of minibatches
    updates = update(
        stage.roles,
        experience.samples,
        config,
        material.schedule.factor(step) * stage.watch.rate,
        step,
        kl_coefficient=coefficient,
        demonstrations=material.demonstrations,
    )
    # 8. the KL coefficient follows
    metrics = {**experience.metrics, **updates, **gaps, "kl_coefficient": coefficient}
    metrics |= stage.watch.measure(experience.samples)
    stage.controller.update(metrics["kl"], len(samples))
    progress.consumed += len(rows)
    progress.kl_coefficient, progress.score_moments = stage.controller.coefficient, list(experience.moments)
    progress.ptx_consumed = 0 if material.demonstrations is None else material.demonstrations.consumed
    elapsed = time.perf_counter() - started
    return {**metrics, "step_s": elapsed, "rollout_s": rollout_s, "samples_per_s": len(samples) / elapsed}


@contextmanager
def _completed_work_saved(
    run: Run[PpoConfig], stage: PpoState, before: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """A reward source that fails stops the run, after a checkpoint of the last iteration completed.

    Nothing that moves weights may stand inside. `before` is done first.
    """
    try:
        yield
    except TrainingError:
        before()
        latest = run.store.latest()
        if run.step and (latest is None or latest.step != run.step):
            save(run, stage.roles.trained(), stage.progress)
        run.say(f"the work up to step {run.step} is saved" if run.step else "no iteration was completed")
        raise


def evaluate(
    run: Run[PpoConfig], roles: Roles, sources: RewardSources, prompts: Sequence[EncodedPrompt], log: MetricsLog
) -> dict[str, float]:
    """Score and EOS rate on held-out prompts, answered with the same draws every time (by the average of weights,
    where one is kept)."""
    config, tokenizer = run.config, sources.tokenizers[0]
    with roles.actor.averaged():
        samples = draw_answers(roles.actor, tokenizer, prompts, config, EVAL_STEP)
    scores = sources.scores(samples).totals
    rows = [
        {
            "prompt": sample.prompt.text,
            "answer": tokenizer.text(sample.response.tolist()),
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


def _finish(run: Run[PpoConfig], stage: PpoState) -> None:
    roles, tokenizer = stage.roles, stage.sources.tokenizers[0]
    if run.dry_run:
        for name, part in roles.trained().items():
            part.load(run.store.require_latest().path / name)
    probe = pack_sequences([_probe(stage.material.prompts.items[0], tokenizer)])
    with roles.actor.averaged():
        roles.export_actor(run, tokenizer, probe, stage.paths.actor)
    run_control(run, roles, stage.sources, tokenizer, stage.material.held_out.items)
    stage.watch.conclude()


def _probe(prompt: EncodedPrompt, tokenizer: ChatTokenizer) -> EncodedSequence:
    """A prompt and EOS: enough to compare two models' numbers."""
    ids = np.append(prompt.ids, np.int32(tokenizer.eos_id))
    return Sample(prompt, ids[-1:], True, np.zeros(1, np.float32)).sequence


def _load_material(run: Run[PpoConfig], tokenizer: ChatTokenizer) -> TrainingData:
    """All data, read before any model is."""
    config, data = run.config, run.config.data
    prompts, held_out = _load_prompts(run, tokenizer)
    lengths = tuple(map(len, prompts.items)) if data.curriculum == "length" else None
    stream = prompts.stream(
        seed=config.run.seed, batch_size=config.ppo.num_prompts, epochs=config.train.epochs, first_by=lengths
    )
    reports = {"train": prompts.reports, "eval": held_out.reports}
    demonstrations = None
    if data.ptx:
        encode = Encoder(tokenizer, data.max_length).demonstrations
        loaded = load(data, data.ptx, Demonstration, encode, key="data.ptx")
        order = loaded.stream(seed=config.run.seed, batch_size=config.train.batch_size, epochs=1.0)
        demonstrations, reports["ptx"] = Demonstrations(loaded.items, order), loaded.reports
    schedule, last = schedule_of(config.train, stream.num_steps), run.last_step(stream.num_steps)
    return TrainingData(prompts, held_out, demonstrations, reports, stream, schedule, last)


def _load_prompts(
    run: Run[PpoConfig], tokenizer: ChatTokenizer
) -> tuple[LoadedRows[EncodedPrompt], LoadedRows[EncodedPrompt]]:
    data, limit = run.config.data, run.config.sampling.max_prompt_tokens
    encoder = Encoder(tokenizer, limit)
    train = load(data, data.train, Prompt, encoder.prompts, key="data.train")
    run.say(f"prompts: {encode_summary(encoder)}")
    if not data.eval:
        return train, LoadedRows([], (), (), [])
    encoder = fresh_report(encoder)
    return train, load(data, data.eval, Prompt, encoder.prompts, key="data.eval", limit=run.config.eval.max_rows)
