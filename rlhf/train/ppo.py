"""Stage 3: PPO actor-critic, or policy gradients without a critic. One step is one iteration: a rollout and all the
updates made from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import RolePaths
from rlhf.data.encode import EncodedPrompt, EncodedSequence
from rlhf.data.packing import pack_sequences
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.doctor.proofs_head import model_head_proof
from rlhf.errors import TrainingError
from rlhf.ops.moments import Moments
from rlhf.rollout.graphs import graphs_in_words
from rlhf.rollout.vllm.client import VllmRollout
from rlhf.rollout.vllm.start import require_same_shape, require_vllm, start_engine
from rlhf.train.policy.ahead import Ahead, from_json
from rlhf.train.policy.build_roles import build_roles, checked_paths, role_tokenizers
from rlhf.train.policy.control_group import run_control
from rlhf.train.policy.equal_groups import KeptGroups, kept_groups
from rlhf.train.policy.experience import (
    begin_answers,
    draw_answers,
    final_rewards,
    gather_experience,
    with_training_logprobs,
)
from rlhf.train.policy.reuse import Reuse, open_reuse
from rlhf.train.policy.reward_sources import RewardSources, check_sources, text_sources
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample
from rlhf.train.policy.training_data import TrainingData, load_data
from rlhf.train.policy.tripwire_monitor import TripwireMonitor
from rlhf.train.policy.update import update
from rlhf.train.run.fast_paths import require_proved, start_fast_paths
from rlhf.train.run.lifecycle import (
    Savable,
    end_if_asked,
    is_due,
    metrics_log,
    require_exportable,
    restore,
    save,
    write_manifest,
)
from rlhf.train.run.metrics import MetricsLog
from rlhf.train.run.run import Run
from rlhf.train.schedules import next_kl_coefficient

PROGRESS_METRICS = (
    "objective/reward",
    "objective/kl",
    "rollout/eos_rate",
    "policy/loss",
    "policy/clip_fraction",
    "value/loss",
    "time/samples_per_s",
)
EVAL_STEP = 2**31  # gives evaluation random streams apart from those of training


@dataclass(slots=True)
class PpoProgress:
    """Everything a resumed run needs besides weights and optimizers.

    consumed, ptx_consumed: prompts and demonstrations used; score_moments: of all scores (ppo.score_normalise);
    tripwires: a `TripwireState` as JSON; ahead: answers of the next iteration that are drawn already (rollout.overlap).
    """

    consumed: int = 0
    kl_coefficient: float = 0.0
    score_moments: list[float] = field(default_factory=lambda: list(Moments()))
    ptx_consumed: int = 0
    tripwires: dict[str, Any] = field(default_factory=dict)
    ahead: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PpoState:
    """Everything that an iteration reads or changes."""

    data: TrainingData
    paths: RolePaths
    roles: Roles
    sources: RewardSources
    tripwires: TripwireMonitor
    progress: PpoProgress
    engine: VllmRollout | None = None
    ahead: Ahead = field(default_factory=Ahead)
    reuse: Reuse | None = None

    def saved(self) -> Mapping[str, Savable]:
        """What a checkpoint holds besides the progress, by the name of its folder."""
        return _saved(self.roles, self.reuse)


def train_ppo(run: Run[PpoConfig]) -> None:
    """The whole stage: prompts, roles, iterations, evaluation, checkpoints, export of the actor."""
    state, config = prepare(run), run.config
    last, held_out, tripwires = state.data.last, state.data.held_out.items, state.tripwires
    if run.step < last:
        probe = _probe(state.data.prompts.items[0], state.sources.tokenizers[0])
        require_proved(run, [model_head_proof(state.roles.actor, probe)])
    with metrics_log(run, last, PROGRESS_METRICS) as log:
        while run.step < last and not tripwires.stopped:
            step = run.step + 1
            # 1.-8. prompts, answers, rewards, advantages, updates
            metrics = iteration(run, state, step)
            run.step = step
            # 9. tripwires
            tripwires.observe(step, metrics, partial(log.event, step))
            state.progress.tripwires = tripwires.state
            # the next iteration's answers are in before anything is saved, evaluated or rolled back
            with _completed_work_saved(run, state, partial(log.log, step, metrics)):
                state.progress.ahead = state.ahead.take()
            # 10. held-out prompts
            due = is_due(step, config.eval.every_steps or config.log.samples_every_steps, last) or tripwires.stopped
            if held_out and due and not tripwires.rolls_back:
                with _completed_work_saved(run, state, partial(log.log, step, metrics)):
                    metrics |= evaluate(run, state.roles, state.sources, held_out, log, state.engine)
            # 11. log, and a checkpoint or the way back to one
            log.log(step, metrics)
            if tripwires.rolls_back:
                state = _at(state, tripwires.roll_back(state.saved(), PpoProgress()))
            elif tripwires.stopped or is_due(step, config.checkpoint.every_steps, last):
                save(run, state.saved(), state.progress)
            end_if_asked(run, state.saved(), state.progress)
    _finish(run, state)


def prepare(run: Run[PpoConfig]) -> PpoState:
    """Checks the reward sources, reads the data, builds the roles and restores them from a checkpoint."""
    config = run.config
    paths = checked_paths(config)
    require_vllm(config.rollout, run.ranks.device)
    if config.rollout.backend == "vllm" and config.control.enabled:
        require_same_shape(paths.actor, paths.reference)
    if config.rollout.backend == "transformers":
        run.say(f"decode steps: {graphs_in_words(config.rollout.cuda_graphs, run.ranks.device)}")
    tokenizers = role_tokenizers(config, paths)
    run.say_all(tokenizers[0].notes)
    texts = text_sources(config.reward)
    check_sources(texts, run.ranks)
    data = load_data(run, tokenizers[0])
    reuse = open_reuse(run, paths.actor, tokenizers[0], num_prompts=len(data.prompts.items))
    named = {"actor": paths.actor, "reference": paths.reference, "reward": paths.reward, "critic": paths.critic}
    parents = {role: path for role, path in named.items() if path is not None}
    start_fast_paths(run, parents)
    tripwires = TripwireMonitor(run, tokenizers[0])
    roles = build_roles(run, paths, *tokenizers)
    require_exportable(run, roles.actor)
    sources = RewardSources(config, run.ranks, tokenizers, roles.reward, texts)
    write_manifest(run, tokenizers[0], parents, data.reports)
    progress = restore(run, _saved(roles, reuse), PpoProgress(kl_coefficient=config.ppo.kl_coefficient))
    tripwires.resume(progress.tripwires)
    engine = None
    if config.rollout.backend == "vllm":
        engine = start_engine(
            paths.actor,
            config.rollout,
            config.sampling,
            run.ranks,
            dtype=config.model.dtype,
            eos=[tokenizers[0].eos_id],
            decode=tokenizers[0].text,
            run_folder=run.folder.path,
        )
    return _at(PpoState(data, paths, roles, sources, tripwires, progress, engine, reuse=reuse), progress)


def _saved(roles: Roles, reuse: Reuse | None) -> Mapping[str, Savable]:
    return roles.trained() if reuse is None else {**roles.trained(), "drafts": reuse.drafts}


def _at(state: PpoState, progress: PpoProgress) -> PpoState:
    """The state at `progress`; weights and tripwires are restored already."""
    if state.data.demonstrations is not None:
        state.data.demonstrations.consumed = progress.ptx_consumed
    return replace(state, progress=progress)


def iteration(run: Run[PpoConfig], state: PpoState, step: int) -> dict[str, float]:
    """A rollout and all the updates made from it; its metrics. `state.progress` is then up to date."""
    config, data, progress = run.config, state.data, state.progress
    started, coefficient = time.perf_counter(), progress.kl_coefficient
    # 1., 2. prompts, and answers with the log-probabilities of the distribution they were sampled from
    with _completed_work_saved(run, state):
        kept = _kept_groups(run, state, step) if config.ppo.drop_equal_groups else _all_groups(run, state, step)
    samples, importance, gaps = kept.samples, None, dict[str, float]()
    if config.recomputes_logprobs:
        samples, importance, gaps = with_training_logprobs(samples, state.roles, config)
    rollout_s = time.perf_counter() - started
    # 3.-6. reference, values, scores; token rewards; advantages; whitening
    moments = Moments(*progress.score_moments)
    with _completed_work_saved(run, state):
        experience = gather_experience(
            samples, state.roles, state.sources, config, coefficient, moments, importance, kept.scores
        )
    # 7. several epochs of minibatches
    updates = update(
        state.roles,
        experience.samples,
        config,
        data.schedule.factor(step) * state.tripwires.rate,
        step,
        kl_coefficient=coefficient,
        demonstrations=data.demonstrations,
    )
    # 8. the KL coefficient of the next iteration
    metrics = {**experience.metrics, **kept.metrics, **updates, **gaps, "objective/kl_coefficient": coefficient}
    metrics |= {} if state.reuse is None else state.reuse.completed()
    metrics |= state.tripwires.measure(experience.samples)
    progress.kl_coefficient = next_kl_coefficient(config.ppo, coefficient, metrics["objective/kl"], len(samples))
    progress.consumed += kept.num_prompts
    progress.ahead = []
    progress.score_moments = list(experience.moments)
    progress.ptx_consumed = 0 if data.demonstrations is None else data.demonstrations.consumed
    elapsed = time.perf_counter() - started
    times = {"time/step_s": elapsed, "time/rollout_s": rollout_s, "time/samples_per_s": len(samples) / elapsed}
    return {**metrics, **times, "rollout/tokens_per_s": kept.num_tokens / rollout_s}


def _all_groups(run: Run[PpoConfig], state: PpoState, step: int) -> KeptGroups:
    """The next prompts with their answers; with rollout.overlap these were begun with the weights of the last
    iteration's start, and those of the next iteration are begun with these weights."""
    config, stream, progress = run.config, state.data.stream, state.progress
    rows = stream.batch(progress.consumed)
    asked = _asked(state, config, rows)
    samples = from_json(progress.ahead, asked) if progress.ahead else _drawn(state, asked, config, step)
    if config.rollout.overlap and state.engine is not None and step < stream.num_steps:
        following = _asked(state, config, stream.batch(progress.consumed + len(rows)))
        state.ahead.begin(begin_answers(state.roles.actor, following, config, step + 1, state.engine))
    num_tokens = sum(len(sample.response) for sample in samples)
    return KeptGroups(samples, num_prompts=len(rows), num_tokens=num_tokens)


def _kept_groups(run: Run[PpoConfig], state: PpoState, step: int) -> KeptGroups:
    """Answers to as many prompts as the iteration learns from, without groups of equal rewards. The prompts do not end
    with train.epochs, which counts those that are learned from."""
    config, stream, progress = run.config, state.data.stream, state.progress
    moments, answers = Moments(*progress.score_moments), config.ppo.answers_per_prompt

    def draw(before: int, count: int) -> list[Sample]:
        asked = _asked(state, config, stream.rows(progress.consumed + before, count))
        return _drawn(state, asked, config, step, first=before * answers)

    return kept_groups(
        draw,
        state.sources.scores,
        lambda samples, scores: final_rewards(samples, scores, moments, config).tolist(),
        wanted=len(stream.batch((step - 1) * config.ppo.num_prompts)),
        answers=answers,
        rounds=config.ppo.refill_rounds,
    )


def _drawn(
    state: PpoState, asked: Sequence[EncodedPrompt], config: PpoConfig, step: int, *, first: int = 0
) -> list[Sample]:
    """One answer per prompt, from the last answers to them with rollout.reuse; `first` as in `draw_answers`."""
    actor, tokenizer = state.roles.actor, state.sources.tokenizers[0]
    if state.reuse is not None:
        return state.reuse.draw(actor, tokenizer, asked, config, step, first=first)
    return draw_answers(actor, tokenizer, asked, config, step, state.engine, first=first)


def _asked(state: PpoState, config: PpoConfig, rows: Sequence[int]) -> list[EncodedPrompt]:
    """The prompts of these rows, each repeated for every answer to it."""
    return [state.data.prompts.items[row] for row in rows for _ in range(config.ppo.answers_per_prompt)]


@contextmanager
def _completed_work_saved(
    run: Run[PpoConfig], state: PpoState, before: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """When a reward source or a rollout engine fails inside, on every rank, `before` is called, the last complete
    iteration is saved, and the run stops.

    Nothing inside may change weights.
    """
    try:
        yield
    except TrainingError:
        before()
        latest = run.store.latest()
        if run.step and (latest is None or latest.step != run.step):
            save(run, state.saved(), state.progress)
        run.say(f"the work up to step {run.step} is saved" if run.step else "no iteration was completed")
        raise


def evaluate(
    run: Run[PpoConfig],
    roles: Roles,
    sources: RewardSources,
    prompts: Sequence[EncodedPrompt],
    log: MetricsLog,
    engine: VllmRollout | None,
) -> dict[str, float]:
    """Score and EOS rate on held-out prompts, answered with the same random streams every time (by the averaged
    weights, with train.ema_decay), by the backend that draws in training."""
    config, tokenizer = run.config, sources.tokenizers[0]
    with roles.actor.averaged():
        samples = draw_answers(roles.actor, tokenizer, prompts, config, EVAL_STEP, engine)
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
        "eval/reward": float(np.mean(scores)),
        "eval/eos_rate": float(np.mean([sample.finished for sample in samples])),
    }


def _finish(run: Run[PpoConfig], state: PpoState) -> None:
    roles, tokenizer = state.roles, state.sources.tokenizers[0]
    if run.dry_run:
        for name, part in roles.trained().items():
            part.load(run.store.require_latest().path / name)
    probe = pack_sequences([_probe(state.data.prompts.items[0], tokenizer)])
    with roles.actor.averaged():
        roles.export_actor(run, tokenizer, probe, state.paths.actor)
    run_control(run, roles, state.sources, tokenizer, state.data.held_out.items, state.engine)
    state.tripwires.conclude()


def _probe(prompt: EncodedPrompt, tokenizer: ChatTokenizer) -> EncodedSequence:
    """A prompt and EOS: enough to compare the outputs of two models."""
    ids = np.append(prompt.ids, np.int32(tokenizer.eos_id))
    return Sample(prompt, ids[-1:], True, np.zeros(1, np.float32)).sequence
