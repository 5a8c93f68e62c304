"""What a quickstart passes to its stages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.schema import PpoConfig
from rlhf.config.stages import CHAIN
from rlhf.demo import quickstart
from rlhf.demo.quickstart import Quickstart, processor_seconds


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


def test_the_estimator_is_that_of_stage_3_alone(tmp_path: Path) -> None:
    words = {stage: Quickstart(out=tmp_path, estimator="grpo")._words(stage) for stage in CHAIN}
    assert [stage for stage in CHAIN if "ppo.estimator=grpo" in words[stage]] == ["ppo"]
    assert "ppo.estimator=gae" in Quickstart(out=tmp_path)._words("ppo")
    load_config(PpoConfig, "recipe:demo/ppo", words["ppo"])  # and the recipe allows it


def test_processor_seconds_count_the_work_of_children_that_ended() -> None:
    before = processor_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert processor_seconds() - before > 0.25  # the clock of processes has ticks of 0.01 s
