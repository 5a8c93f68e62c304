"""Values that follow the run: the learning rate and the KL coefficient."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.config.sections import TrainSection
from rlhf.errors import ConfigError
from rlhf.plan.time import MAX_WARMUP_SHARE, warmup_steps


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate's factor over a run of `total` steps: linear warm-up, then a decay to `floor`."""

    total: int
    warmup: int
    kind: str
    floor: float

    def factor(self, step: int) -> float:
        """Share of the peak at optimizer step `step`, counted from 1."""
        if step <= self.warmup:
            return step / self.warmup
        if self.kind == "constant":
            return 1.0
        share = min(1.0, (step - self.warmup - 1) / max(1, self.total - self.warmup - 1))
        decay = 1 - share if self.kind == "linear" else (1 + math.cos(math.pi * share)) / 2
        return self.floor + (1 - self.floor) * decay


def schedule_of(train: TrainSection, total_steps: int) -> Schedule:
    """The schedule of a run of `total_steps`, all epochs counted (`run.max_steps` stops a run, and leaves its
    schedule alone, so that raising it later goes on with the same numbers).

    Raises: ConfigError when the warm-up is longer than 30 % of the run.
    """
    warmup = warmup_steps(train, total_steps)
    if warmup > MAX_WARMUP_SHARE * total_steps:
        raise ConfigError(
            f"a warm-up of {warmup} steps in a run of {total_steps} optimizer steps: training would hardly leave it",
            where=f"train.warmup_steps = {warmup}",
            expected=f"at most 30 % of the run: {int(MAX_WARMUP_SHARE * total_steps)} steps",
            fix="lower train.warmup_steps or train.batch_size, or raise train.epochs",
        )
    return Schedule(total_steps, warmup, train.schedule, train.min_lr_ratio)


@dataclass(slots=True)
class KlController:
    """The weight of the KL penalty: fixed, or steered to a target.

    Adaptive rule: arXiv:1909.08593 section 2.2. `target` in nats a sequence, `horizon` in samples.
    """

    coefficient: float
    target: float | None
    horizon: int

    def update(self, kl_nats: float, num_samples: int) -> None:
        """Moves the coefficient after an iteration whose mean KL a sequence was `kl_nats`."""
        if self.target is None:
            return
        error = max(-0.2, min(0.2, kl_nats / self.target - 1))
        self.coefficient *= 1 + error * num_samples / self.horizon
