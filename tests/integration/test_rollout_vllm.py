"""Stage 3 whose answers a real vLLM engine draws, on a CPU: `make test-vllm`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from rlhf.data.tokenizer import load_tokenizer
from tests.integration.conftest import read_json, read_lines
from tests.integration.starts import Starter
from tests.support.lora_runs import make_lora_run
from tests.support.vllm_engine import engine_python, make_engine_model

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
FLOAT32_GAP = 1e-3  # nats; kernels of two libraries


@pytest.fixture(scope="session")
def runs(tmp_path_factory, tiny_tokenizer) -> dict[str, Path]:
    """LoRA runs of stages 1 and 2 on a base that vLLM's attention can run."""
    folder = tmp_path_factory.mktemp("engine_runs")
    base = make_engine_model(folder / "base", tiny_tokenizer)
    tokenizer = load_tokenizer(str(base), "polyglot-chat")
    return {
        stage: make_lora_run(base, folder / stage, tokenizer, stage=stage, seed=seed)
        for stage, seed in (("sft", 5), ("reward", 6))
    }


@pytest.fixture
def words(configs, runs, tmp_path) -> list[str | Path]:
    """Three iterations of 8 samples."""
    options = ["rollout.backend=vllm", f"rollout.vllm.python={engine_python()}", "rollout.vllm.cpu_cache_gib=0.25"]
    options += ["reward.min_accuracy=null", "run.max_steps=3", "control.enabled=false", f"run.dir={tmp_path}/run"]
    return ["--config", configs["ppo"], f"actor.path={runs['sft']}", f"reward.path={runs['reward']}", *options]


def require_engine_run(folder: Path) -> list[dict]:
    metrics = read_lines(folder / "metrics.jsonl")
    assert len(metrics) == 3
    for line in metrics:
        assert 0 < line["rollout/gap"] <= line["rollout/gap_max"] < FLOAT32_GAP
    assert len({line["objective/kl"] for line in metrics}) == 3  # the policy moves, and the engine with it
    assert (folder / "rollout" / "engine-rank0.log").is_file()
    return metrics


@pytest.mark.parametrize(
    "more",
    [[], ["model.lora.rank=2", "model.lora.alpha=64", "deepspeed.zero_stage=2"], ["deepspeed.zero_stage=3"],
     ["ppo.roles=shared"], ["ppo.roles=shared", "model.quantize=4bit", "model.lora.rank=2"]],
    ids=["whole", "lora", "zero3", "shared", "shared-4bit"],
)  # fmt: skip
def test_three_iterations_on_one_rank(starter: Starter, words, tmp_path, more):
    starter.run("ppo", *words, *more)
    require_engine_run(tmp_path / "run")


@pytest.mark.parametrize("stage", [0, 3])
def test_two_ranks_draw_what_one_draws(starter: Starter, words, tmp_path, stage):
    """An answer's seed depends on neither rank nor batch; each rank has an engine."""
    zero = f"deepspeed.zero_stage={stage}"
    starter.run("ppo", *words, zero)
    starter.run_world("ppo", *words, zero, f"run.dir={tmp_path}/two", ranks=2)
    one, two = require_engine_run(tmp_path / "run"), require_engine_run(tmp_path / "two")
    assert (tmp_path / "two" / "rollout" / "engine-rank1.log").is_file()
    for name in ("rollout/response_tokens", "objective/reward"):
        assert one[0][name] == pytest.approx(two[0][name], rel=1e-4)


def test_a_killed_engine_ends_the_run_with_its_work_saved(starter: Starter, words, tmp_path):
    run = tmp_path / "run"
    started = starter.start("ppo", *words, "run.max_steps=1000", "train.epochs=1000", "checkpoint.every_steps=1000")
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.is_file() and len(read_lines(metrics)) >= 2):
        assert time.monotonic() < deadline, started.text
        time.sleep(0.2)
    os.kill(engine_of(started.pid), signal.SIGKILL)
    outcome = started.wait(200)
    assert outcome.status == 1
    assert "EngineError: rollout.backend: the rollout engine" in outcome.text
    assert "ended with signal SIGKILL" in outcome.text
    state = read_json(run / "state.json")
    assert state["status"] == "failed"
    assert f"the work up to step {state['step']} is saved" in outcome.text
    assert (run / "checkpoints" / f"step-{state['step']:06d}").is_dir()


def test_no_engine_outlives_a_killed_run(starter: Starter, words, tmp_path):
    started = starter.start("ppo", *words, "run.max_steps=1000", "train.epochs=1000")
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "metrics.jsonl").is_file():
        assert time.monotonic() < deadline, started.text
        time.sleep(0.2)
    engine = engine_of(started.pid)
    started.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{engine}").is_dir() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{engine}").is_dir()


def engine_of(parent: int) -> int:
    """The process that has the trainer as its parent and runs the server."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, command = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"rollout/server/main.py" in command and int(stat.rpartition(")")[2].split()[1]) == parent:
            return int(folder.name)
    raise AssertionError(f"process {parent} has no engine")
