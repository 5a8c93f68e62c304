"""How far a run of stage 1 or 2 is, and when its held-out figure was best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class EvaluatedProgress:
    """Everything a resumed run needs besides weights and optimizer.

    consumed: training rows used; best_figure: the best held-out figure, None before an evaluation; best_step: its step.
    """

    consumed: int = 0
    best_figure: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0

    def record(self, figure: float, step: int, is_better: Callable[[float, float], bool]) -> bool:
        """Takes in the held-out figure after a step; whether it is the best so far. One that is not finite never is."""
        if math.isfinite(figure) and (self.best_figure is None or is_better(figure, self.best_figure)):
            self.best_figure, self.best_step, self.evaluations_since_best = figure, step, 0
            return True
        self.evaluations_since_best += 1
        return False

    def has_patience(self, patience: int | None) -> bool:
        """Whether the run continues after so many evaluations without a better one; `patience` None is unlimited."""
        return patience is None or self.evaluations_since_best < patience

    def closing_line(self, step: int, patience: int | None, figure: str) -> str:
        """How a run of so many steps ended; `figure` names the best one."""
        if self.best_figure is None:
            return f"trained {step} steps"
        stopped = "" if self.has_patience(patience) else " and stopped early"
        return f"trained {step} steps{stopped}; {figure} {self.best_figure:.4f} after step {self.best_step}"
