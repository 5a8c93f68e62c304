"""What a quickstart passes to its stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.stages import CHAIN
from rlhf.demo import quickstart
from rlhf.demo.quickstart import Quickstart


@pytest.mark.parametrize(("max_steps", "words"), [(None, []), (3, ["run.max_steps=3"])])
def test_every_stage_is_cut_short_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_steps: int | None, words: list[str]
) -> None:
    """A reward model of so few steps is below the least accuracy, so stage 3 is told to take any."""
    started: dict[str, list[str]] = {}
    monkeypatch.setattr(quickstart, "start_stage", lambda stage, arguments: started.update({stage: arguments}) or 0)
    monkeypatch.setattr(RunFolder, "status", lambda self: "finished")
    for stage in CHAIN:
        Quickstart(out=tmp_path, max_steps=max_steps)._stage(stage)
        assert [word for word in started[stage] if word.startswith("run.max_steps")] == words
    assert ("reward.min_accuracy=null" in started["ppo"]) == (max_steps is not None)
