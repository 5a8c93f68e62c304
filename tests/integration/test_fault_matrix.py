"""Every stage on 1 and 2 ranks at ZeRO 0 to 3, its rank or its launcher killed with SIGKILL and started again: the
numbers are those of the uninterrupted run, bit for bit. 64 cells under the real launcher; `make test-full` runs them.

Where the kill lands is left to chance, after the first checkpoint; it may hit a step, a write or an evaluation.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.conftest import Finished, read_json, read_run, require_same_run
from tests.integration.starts import Starter, is_alive, launched, wait_until

pytestmark = pytest.mark.full
MORE = {
    "sft": ["train.epochs=4"],
    "reward": ["train.epochs=3"],
    "ppo": ["train.epochs=3", "control.enabled=false"],
    "dpo": ["train.epochs=3"],
}


@pytest.fixture(scope="module")
def uninterrupted() -> dict[tuple[str, int, int], Finished]:
    """Finished runs by stage, ranks and ZeRO stage, made when first asked for."""
    return {}


def words_of(stage: str, zero: int, configs: dict[str, Path], chain: dict[str, Path]) -> list[str]:
    inputs = {
        "sft": [],
        "reward": [f"model.path={chain['sft']}"],
        "ppo": [f"actor.path={chain['sft']}", f"reward.path={chain['reward']}/model"],
        "dpo": [f"model.path={chain['sft']}"],
    }
    common = [f"deepspeed.zero_stage={zero}", "checkpoint.every_steps=1"]
    common += [] if stage == "reward" else ["log.samples_every_steps=4"]
    return ["--config", str(configs[stage]), *common, *MORE[stage], *inputs[stage]]


def read_any(folder: Path) -> Finished:
    (folder / "samples.jsonl").touch()  # stage 2 draws none
    return read_run(folder)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("victim", ["rank", "launcher"])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "dpo"])
def test_killed_and_started_again(
    starter: Starter,
    configs: dict[str, Path],
    chain: dict[str, Path],
    uninterrupted: dict[tuple[str, int, int], Finished],
    tmp_path: Path,
    stage: str,
    ranks: int,
    zero: int,
    victim: str,
) -> None:
    words, run = words_of(stage, zero, configs, chain), tmp_path / "run"
    cell = (stage, ranks, zero)
    if cell not in uninterrupted:
        starter.run_world(stage, *words, f"run.dir={tmp_path}/whole", ranks=ranks)
        uninterrupted[cell] = read_any(tmp_path / "whole")
    words.append(f"run.dir={run}")
    with launched(stage, *words, ranks=ranks, log=tmp_path / "first.txt") as first:
        wait_until((run / "checkpoints" / "latest").is_file, "a checkpoint", timeout=300)
        alive = first.rank_pids()
        os.kill(alive[ranks - 1] if victim == "rank" else first.process.pid, signal.SIGKILL)
        first.wait()
        wait_until(lambda: not any(map(is_alive, alive.values())), "the ranks' end", timeout=20)
    assert read_json(run / "state.json")["status"] in ("running", "failed")
    with launched(stage, *words, "--resume", "auto", ranks=ranks, log=tmp_path / "second.txt") as second:
        outcome = second.wait(600)
    assert outcome.status == 0, outcome.text
    assert "resumed from" in outcome.text
    (run / "samples.jsonl").touch()
    require_same_run(run, uninterrupted[cell])
