"""The best evaluation, and how long a run waits for a better one."""

from __future__ import annotations

import math
import operator

from rlhf.train.run.progress import EvaluatedProgress


def test_a_lower_loss_is_better_and_resets_the_patience() -> None:
    progress = EvaluatedProgress()
    found = [progress.record(loss, step, operator.lt) for step, loss in enumerate((2.0, 2.0, 1.5, 1.6), start=1)]
    assert found == [True, False, True, False]
    assert (progress.best_figure, progress.best_step, progress.evaluations_since_best) == (1.5, 3, 1)


def test_a_higher_accuracy_is_better() -> None:
    progress = EvaluatedProgress()
    assert progress.record(0.0, 1, operator.gt)  # the first always is
    assert progress.record(0.6, 2, operator.gt)
    assert not progress.record(0.5, 3, operator.gt)
    assert progress.best_figure == 0.6


def test_patience_ends_after_so_many_evaluations_in_a_row() -> None:
    progress = EvaluatedProgress(best_figure=0.5, best_step=1, evaluations_since_best=2)
    assert progress.has_patience(3)
    assert not progress.has_patience(2)
    assert progress.has_patience(None)


def test_a_figure_that_is_no_number_is_never_the_best() -> None:
    progress = EvaluatedProgress()
    assert not progress.record(math.nan, 1, operator.lt)
    assert not progress.record(math.inf, 2, operator.gt)
    assert progress == EvaluatedProgress(evaluations_since_best=2)
