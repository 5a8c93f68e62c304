"""An engine in which nothing learns, for steps that are computed by hand."""

from __future__ import annotations

from torch import Tensor

from rlhf.engine.deepspeed import StepOutcome
from rlhf.train.schedules import Schedule
from tests.support.tables import ONE_RANK

HALF = Schedule(total=10, warmup=2, kind="linear", floor=0.1)  # half the peak at step 1


class CountedSteps:
    """Keeps the rates of its steps, and the sum of the losses that it was to learn from."""

    ranks = ONE_RANK

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.learned = 0.0

    def backward(self, loss: Tensor) -> None:
        self.learned += float(loss)

    def step(self, lr: float) -> StepOutcome:
        self.rates.append(lr)
        return StepOutcome(7.0, True)
