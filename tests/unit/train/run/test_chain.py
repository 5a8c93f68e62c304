"""Stages that a command starts one after another: what is refused first, what is kept, what each took."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf.artifacts.files import write_json, write_text
from rlhf.artifacts.run_folder import RunFolder
from rlhf.errors import ConfigError
from rlhf.train.run.chain import ChainedStage, PartTimes, check_chain, processor_seconds


def test_processor_seconds_count_the_work_of_children_that_ended() -> None:
    before = processor_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert processor_seconds() - before > 0.25  # the clock of processes has ticks of 0.01 s


def test_a_part_is_timed_over_all_its_starts_and_also_when_it_fails() -> None:
    kept: list[dict[str, float]] = []
    times = PartTimes(lambda: kept.append(dict(times.seconds)), seconds={"sft": 100.0})

    def fails() -> None:
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        times.run("sft", Path("sft"), False, fails)
    assert times.seconds["sft"] > 100
    assert kept == [times.seconds]
    before = dict(times.seconds)
    times.run("sft", Path("sft"), True, fails)  # finished: kept
    assert times.seconds == before


def test_a_part_that_is_forgotten_starts_from_0() -> None:
    times = PartTimes(lambda: None, seconds={"measure": 100.0})
    times.forget("measure")
    with times.timing("measure"):
        time.sleep(0.01)
    assert 0.01 <= times.seconds["measure"] < 50


def test_a_stage_is_finished_with_its_model_alone(tmp_path: Path) -> None:
    stage = ChainedStage("one", "sft", "recipe:demo/sft", (f"run.dir={tmp_path}",), tmp_path)
    assert not stage.is_finished
    RunFolder(tmp_path).set_state("finished", stage="sft", step=3)
    assert not stage.is_finished
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "config.json", {})
    assert stage.is_finished
    RunFolder(tmp_path).set_state("preempted", stage="sft", step=3)
    assert not stage.is_finished


def test_every_stage_is_checked_before_the_first(tmp_path: Path) -> None:
    """A key, a path and a file at once; a file that is made on the way is not looked for."""
    rows = tmp_path / "rows.jsonl"
    write_text(rows, '{"prompt": "비?", "responses": ["네", "몰라"], "ranks": [1, 2]}\n' * 400)
    common = (f"data.train={rows}", "data.eval=[]")
    later = str(tmp_path / "later.jsonl")
    stages = [
        ChainedStage("first", "sft", "recipe:demo/sft", (*common, "train.lrr=1"), tmp_path / "first"),
        ChainedStage("second", "dpo", "recipe:demo/dpo", (*common, f"model.path={tmp_path}/no/model"), tmp_path / "b"),
        ChainedStage(
            "third", "sft", "recipe:demo/sft", (f"data.train={later}", "model.path=sft/model"), tmp_path / "c"
        ),
    ]
    with pytest.raises(ConfigError) as refused:
        check_chain(stages, earlier=["s"], made=[later])
    text = str(refused.value)
    assert "train.lrr" in text
    assert "stage second  model.path" in text
    assert "later.jsonl" not in text
    with pytest.raises(ConfigError, match=r"later\.jsonl"):
        check_chain(stages[2:], earlier=["s"])
