"""Which configuration keys shape the learning rate and the KL coefficient."""

from __future__ import annotations

import pytest

from rlhf.config.algorithm import PpoSection
from rlhf.config.sections import TrainSection
from rlhf.errors import ConfigError
from rlhf.train.schedules import next_kl_coefficient, schedule_of


def test_every_key_of_the_schedule_is_used() -> None:
    """Eleven steps, three of warm-up: the decay starts at step 4 and is at its middle at 7.5, at its end at 11."""
    train = TrainSection(schedule="linear", warmup_steps=3, min_lr_ratio=0.3)
    schedule = schedule_of(train, 11)
    found = [schedule.factor(step) for step in (1, 3, 4, 11)]
    assert found == pytest.approx([1 / 3, 1, 1, 0.3])
    other = schedule_of(train.model_copy(update={"schedule": "constant"}), 11)
    assert other.factor(11) == 1
    by_ratio = schedule_of(TrainSection(warmup_ratio=0.2), 10)
    assert (by_ratio.warmup, by_ratio.kind, by_ratio.floor) == (2, "cosine", 0.1)


def test_a_warm_up_of_most_of_the_run_is_refused() -> None:
    assert schedule_of(TrainSection(warmup_steps=3), 10).warmup == 3
    with pytest.raises(ConfigError, match="a warm-up of 4 steps") as caught:
        schedule_of(TrainSection(warmup_steps=4), 10)
    assert "at most 30 % of the run: 3 steps" in str(caught.value)


def test_the_kl_coefficient_moves_only_with_a_target() -> None:
    """64 samples of a horizon of 640, KL 10 % above the target: 0.05 * 1.01."""
    fixed = PpoSection(kl_horizon=640)
    assert next_kl_coefficient(fixed, 0.05, 100.0, 64) == 0.05
    adaptive = fixed.model_copy(update={"kl_target": 2.0})
    assert next_kl_coefficient(adaptive, 0.05, 2.2, 64) == pytest.approx(0.0505)
    assert next_kl_coefficient(adaptive, 0.05, 1.8, 64) == pytest.approx(0.0495)
