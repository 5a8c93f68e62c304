"""Learning rate and KL coefficient over a run: the configuration's part; the formulas are in `rlhf.ops`."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.config.algorithm import PpoSection
from rlhf.config.sections import TrainSection
from rlhf.ops.kl_control import adapted_kl_coefficient
from rlhf.ops.schedules import ScheduleKind, learning_rate_factor
from rlhf.plan.steps import require_warmup_fits


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning-rate schedule of a run of `total` steps; fields as in `learning_rate_factor`."""

    total: int
    warmup: int
    kind: ScheduleKind
    floor: float

    def factor(self, step: int) -> float:
        """Share of the peak at optimizer step `step`, counted from 1."""
        return learning_rate_factor(step, total=self.total, warmup=self.warmup, kind=self.kind, floor=self.floor)


def schedule_of(train: TrainSection, total_steps: int) -> Schedule:
    """The schedule of a run whose epochs take `total_steps`.

    `run.max_steps` stops a run without changing its schedule, so that raising it later continues with the same rates.

    Raises: ConfigError when the warm-up is longer than 30 % of the run.
    """
    warmup = require_warmup_fits(train, total_steps)
    return Schedule(total_steps, warmup, train.schedule, train.min_lr_ratio)


def next_kl_coefficient(ppo: PpoSection, coefficient: float, kl_nats: float, num_samples: int) -> float:
    """The KL coefficient after an iteration of mean KL `kl_nats` per sequence; constant without ppo.kl_target."""
    if ppo.kl_target is None:
        return coefficient
    target, horizon = ppo.kl_target, ppo.kl_horizon
    return adapted_kl_coefficient(coefficient, kl_nats, target=target, num_samples=num_samples, horizon=horizon)
