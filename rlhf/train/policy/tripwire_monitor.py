"""The tripwires of a run: measures its answers, reports and records trips, and takes the actions they ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from rlhf.artifacts.checkpoint import Checkpoint
from rlhf.artifacts.files import write_text
from rlhf.artifacts.manifest import require_stage
from rlhf.config.ppo import PpoConfig
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.deepspeed import InferenceModel
from rlhf.errors import ConfigError
from rlhf.models.loading import artifact_model_path, check_model_path
from rlhf.train.models import build_scalar_model
from rlhf.train.policy.answer_metrics import answer_metrics
from rlhf.train.policy.reward_sources import score_samples
from rlhf.train.policy.samples import Sample
from rlhf.train.policy.tripwires import RATE_FACTOR, WATCHED, Trip, Tripwires, TripwireState, strongest
from rlhf.train.run.lifecycle import Savable, restore
from rlhf.train.run.run import Run


class MonitoredProgress(Protocol):
    """Progress that holds a `TripwireState` as JSON."""

    tripwires: dict[str, Any]


ProgressT = TypeVar("ProgressT", bound=MonitoredProgress)


class TripwireMonitor:
    """Every rank holds one and makes the same decisions; rank 0 writes.

    Args:
        run: its `config.tripwires` sets limits and actions.
        tokenizer: the actor's.

    Raises: ConfigError, ModelError or ArtifactError for a tripwires.held_out_reward that cannot be used.
    """

    def __init__(self, run: Run[PpoConfig], tokenizer: ChatTokenizer) -> None:
        self._run, self._tokenizer = run, tokenizer
        self._wires = Tripwires(run.config.tripwires, TripwireState())
        self._target: Checkpoint | None = None
        path = _held_out_path(run.config)
        self._scorer = load_tokenizer(path) if path else tokenizer
        self._held_out = _held_out_reward(run, path, self._scorer) if path else None

    def resume(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint's state; an empty one starts anew. The files are rewritten to match the state."""
        found = TripwireState(**state)
        if found.stopped_by and self._run.config.tripwires.wires()[found.stopped_by].action not in ("stop", "rollback"):
            found.stopped_by = ""  # the user has changed this wire's action and continues
        self._wires = Tripwires(self._run.config.tripwires, found)
        self._run.on_main(self._write_files)

    @property
    def state(self) -> dict[str, Any]:
        """The state that a checkpoint holds."""
        return asdict(self._wires.state)

    @property
    def rate(self) -> float:
        """Factor on all learning rates."""
        return self._wires.state.rate

    @property
    def stopped(self) -> bool:
        """Whether a wire has ended the run."""
        return bool(self._wires.state.stopped_by)

    @property
    def rolls_back(self) -> bool:
        """Whether a wire asks for a rollback now."""
        return self._target is not None

    def measure(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Metrics of the scored answers of one iteration, and their scores by the held-out reward model."""
        texts = [self._tokenizer.text(sample.response.tolist()) for sample in samples]
        found = answer_metrics(
            texts, [len(sample.response) for sample in samples], [sample.score for sample in samples]
        )
        if self._held_out is not None:
            scores = score_samples(samples, self._held_out, self._tokenizer, self._scorer, self._run.config)
            found["objective/held_out_reward"] = float(np.mean(scores))
            found["objective/held_out_reward_std"] = float(np.std(scores))
        return found

    def observe(self, step: int, metrics: Mapping[str, float], say: Callable[[str], None]) -> None:
        """Takes in an iteration's metrics; trips are reported with `say`, written, and acted on."""
        figures = {name: metrics[name] for name in WATCHED if name in metrics}
        trips = self._wires.observe(step, self._run.ranks.from_main(figures))
        decisive = strongest(trips)
        if decisive is None:
            return
        for trip in trips:
            say(f"tripwire {trip.wire}, step {step} ({trip.action}): {trip.text}")
        self._act(decisive, say)
        self._run.on_main(self._write_trips)

    def _act(self, trip: Trip, say: Callable[[str], None]) -> None:
        state = self._wires.state
        if trip.action == "rollback":
            self._target = self._run.store.before(state.began[trip.wire])
            if self._target is None:
                say(f"no checkpoint is left from before step {state.began[trip.wire]}: the run stops instead")
        if trip.action == "stop" or (trip.action == "rollback" and self._target is None):
            state.stopped_by = trip.wire
        elif trip.action == "lower_lr":
            state.rate *= RATE_FACTOR
            say(f"learning rates are {state.rate:g} of the schedule's from now on")

    def roll_back(self, saved: Mapping[str, Savable], fresh: ProgressT) -> ProgressT:
        """The progress of the checkpoint from before the excursion; what it holds of `saved`, and its generators, are
        loaded.

        The tripwires keep the record of the trip, and the learning rates are halved.
        """
        assert self._target is not None, "no wire asked for a rollback"
        run, now, target = self._run, self._wires.state, self._target
        self._target = None
        run.store.require_undamaged(target)
        now.rate, now.rollbacks = now.rate * RATE_FACTOR, now.rollbacks + 1
        run.on_main(lambda: self._set_aside(target.step))
        run.store.rewind(target)
        run.resumed, run.step = target, target.step
        progress = restore(run, saved, fresh)
        then = TripwireState(**progress.tripwires)
        then.rate, then.rollbacks, then.began, then.trips = now.rate, now.rollbacks, now.began, now.trips
        self.resume(asdict(then))
        progress.tripwires = self.state
        return progress

    def conclude(self) -> None:
        """Reports which wire stopped the run, for state.json too."""
        state = self._wires.state
        if state.stopped_by:
            last = next(trip for trip in reversed(state.trips) if trip["wire"] == state.stopped_by)
            self._run.reason = f"Tripwire {last['wire']} stopped the run at step {last['step']}. {last['text']}"
            self._run.say(self._run.reason)

    def _set_aside(self, step: int) -> None:
        """Copies the metrics of the iterations that are undone, for the report."""
        folder, number = self._run.folder, self._wires.state.rollbacks
        lines = [line for line in _lines(folder.metrics) if line["step"] > step]
        with folder.abandoned.open("a", encoding="utf-8") as file:
            file.writelines(_json({**line, "rollback": number}) for line in lines)

    def _write_files(self) -> None:
        """Drops what came after the checkpoint, because a resumed run writes it again."""
        self._write_trips()
        folder, done = self._run.folder, self._wires.state.rollbacks
        if folder.abandoned.is_file():
            kept = [line for line in _lines(folder.abandoned) if line["rollback"] <= done]
            write_text(folder.abandoned, "".join(map(_json, kept)))

    def _write_trips(self) -> None:
        trips, file = self._wires.state.trips, self._run.folder.tripwires
        if trips or file.exists():
            write_text(file, "".join(map(_json, trips)))


def _held_out_path(config: PpoConfig) -> str:
    """The held-out reward model's folder; empty where none is named."""
    key, given = "tripwires.held_out_reward", config.tripwires.held_out_reward
    if not given:
        return ""
    path = artifact_model_path(given)
    check_model_path(path, key=key)
    require_stage(path, "reward", key=key)
    reward = artifact_model_path(config.reward.path)
    if reward and Path(path).resolve() == Path(reward).resolve():
        raise ConfigError(
            f"{given} is the reward model that PPO trains on",
            where=key,
            expected="an independent one: trained on other rankings, or at least from another seed",
            fix="train another with stage 2, or leave it empty",
        )
    return path


def _held_out_reward(run: Run[PpoConfig], path: str, tokenizer: ChatTokenizer) -> InferenceModel:
    config, ranks = run.config, run.ranks
    model = build_scalar_model(path, config.model, config.deepspeed, ranks, tokenizer, key="tripwires.held_out_reward")
    return InferenceModel(model, config.deepspeed, ranks, dtype=config.model.dtype)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
