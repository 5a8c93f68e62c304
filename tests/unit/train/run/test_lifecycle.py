"""When something periodic is due, how far a run goes, and what comes back from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf.artifacts.checkpoint import CheckpointStore
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.schema import SftConfig
from rlhf.train.ppo import PpoProgress
from rlhf.train.run.lifecycle import is_due, restore, save
from rlhf.train.run.progress import EvaluatedProgress
from rlhf.train.run.run import DRY_RUN_STEPS, Run
from tests.support.tables import ONE_RANK


def test_what_is_periodic_is_due_at_its_multiples_and_at_the_end() -> None:
    assert [step for step in range(1, 11) if is_due(step, 4, 10)] == [4, 8, 10]
    assert not any(is_due(step, None, 10) for step in range(1, 11))


@pytest.mark.parametrize(("limit", "last"), [(None, 10), (4, 4), (20, 10)])
def test_a_run_ends_at_its_limit_or_at_the_end_of_its_data(limit: int | None, last: int) -> None:
    config: Any = SimpleNamespace(run=SimpleNamespace(max_steps=limit))
    parts: list[Any] = [None, None, None, None]
    assert Run("sft", config, *parts, dry_run=False).last_step(10) == last
    assert Run("sft", config, *parts, dry_run=True).last_step(10) == DRY_RUN_STEPS


@pytest.mark.parametrize(
    "progress",
    [
        EvaluatedProgress(consumed=9, best_figure=0.25, best_step=2, evaluations_since_best=1),
        PpoProgress(9, 0.1, [3.0, 2.0, 1.0], 4, {"rate": 0.5}),
    ],
)
def test_progress_comes_back_as_it_was_saved(tmp_path: Path, progress: Any) -> None:
    """No field of it shares its name with something else that a checkpoint holds."""
    folder = RunFolder(tmp_path)
    store = CheckpointStore(folder.checkpoints, ONE_RANK, keep_last=1)
    run: Run[Any] = Run("sft", SftConfig(), ONE_RANK, folder, store, None, dry_run=False, step=3)
    save(run, {}, progress, best=True)
    run.resumed = store.require_latest()
    assert restore(run, {}, type(progress)()) == progress
