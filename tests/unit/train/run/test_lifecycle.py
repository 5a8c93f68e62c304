"""When something periodic is due, and how far a run goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rlhf.train.run.lifecycle import is_due
from rlhf.train.run.run import DRY_RUN_STEPS, Run


def test_what_is_periodic_is_due_at_its_multiples_and_at_the_end() -> None:
    assert [step for step in range(1, 11) if is_due(step, 4, 10)] == [4, 8, 10]
    assert not any(is_due(step, None, 10) for step in range(1, 11))


@pytest.mark.parametrize(("limit", "last"), [(None, 10), (4, 4), (20, 10)])
def test_a_run_ends_at_its_limit_or_at_the_end_of_its_data(limit: int | None, last: int) -> None:
    config: Any = SimpleNamespace(run=SimpleNamespace(max_steps=limit))
    parts: list[Any] = [None, None, None, None]
    assert Run("sft", config, *parts, dry_run=False).last_step(10) == last
    assert Run("sft", config, *parts, dry_run=True).last_step(10) == DRY_RUN_STEPS
