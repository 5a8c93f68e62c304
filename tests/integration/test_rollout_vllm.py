"""Stage 3 whose answers a real vLLM engine draws, on a CPU: `make test-vllm`."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from openai import OpenAI

from rlhf.cli import main
from rlhf.data.tokenizer import load_tokenizer
from tests.integration.conftest import read_json, read_lines, read_run, require_same_run
from tests.integration.starts import Fault, Starter
from tests.support.lora_runs import make_lora_run
from tests.support.serving import service_process
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


def test_answers_drawn_ahead_are_those_of_the_weights_before(starter: Starter, words, tmp_path):
    """The first two iterations' answers come from the same weights; then the gap holds a step of the policy."""
    starter.run("ppo", *words)
    starter.run("ppo", *words, "rollout.overlap=1", f"run.dir={tmp_path}/ahead")
    plain, ahead = require_engine_run(tmp_path / "run"), read_lines(tmp_path / "ahead" / "metrics.jsonl")
    assert len(ahead) == 3
    same = ("rollout/response_tokens", "objective/reward", "rollout/gap")
    assert [ahead[0][name] for name in same] == [plain[0][name] for name in same]
    assert all(line["rollout/gap"] > FLOAT32_GAP for line in ahead[1:])
    assert all(line["policy/clip_fraction"] >= 0 for line in ahead)


def test_two_ranks_draw_ahead_what_one_draws(starter: Starter, words, tmp_path):
    ahead = "rollout.overlap=1"
    starter.run("ppo", *words, ahead)
    starter.run_world("ppo", *words, ahead, f"run.dir={tmp_path}/two", ranks=2)
    one, two = (read_lines(tmp_path / name / "metrics.jsonl") for name in ("run", "two"))
    for name in ("rollout/response_tokens", "objective/reward", "rollout/gap"):
        assert [line[name] for line in one] == pytest.approx([line[name] for line in two], rel=1e-3)


LIVE = ("control.enabled=true", "rollout.overlap=1", "checkpoint.every_steps=2", "eval.every_steps=1")


def test_a_run_that_draws_ahead_goes_on_the_same(starter: Starter, words, tmp_path):
    """Killed in the fourth iteration after a checkpoint of the second; ended by a limit that is raised."""
    words = [*words, *LIVE]
    whole, killed, raised = (f"run.dir={tmp_path}/{name}" for name in ("whole", "killed", "raised"))
    starter.run("ppo", *words, "run.max_steps=4", whole)
    fault = Fault("rlhf.train.policy.update:minibatch", 14)
    starter.run("ppo", *words, "run.max_steps=4", killed, fault=fault, status=-signal.SIGKILL)
    assert "after step 2" in starter.run("ppo", *words, "run.max_steps=4", killed, "--resume", "auto")
    starter.run("ppo", *words, "run.max_steps=2", raised)
    starter.run("ppo", *words, "run.max_steps=4", raised, "--resume", "auto")
    expected = read_run(tmp_path / "whole")
    assert len({line["rollout/response_tokens"] for line in expected.metrics}) > 1
    for name in ("killed", "raised"):
        require_same_run(tmp_path / name, expected)
    assert len(read_json(tmp_path / "whole" / "control.json")) > 2


def test_a_rolled_back_run_that_draws_ahead_is_the_same_when_it_is_killed(starter: Starter, words, tmp_path):
    words = [*words, *LIVE, "checkpoint.every_steps=1", "ppo.kl_target=null", "train.lr=5.0e-3", "run.max_steps=5"]
    words += ["tripwires.kl.action=rollback", "tripwires.kl.max_nats=0.01"]
    starter.run("ppo", *words, f"run.dir={tmp_path}/whole")
    assert (tmp_path / "whole" / "abandoned.jsonl").is_file()
    parts = f"run.dir={tmp_path}/parts"
    fault = Fault("rlhf.train.policy.tripwire_monitor:TripwireMonitor.roll_back", 2)
    starter.run("ppo", *words, parts, fault=fault, status=-signal.SIGKILL)
    starter.run("ppo", *words, parts, "--resume", "auto")
    require_same_run(tmp_path / "parts", read_run(tmp_path / "whole"))


@pytest.mark.parametrize("more", [[], ["model.lora.rank=2"]], ids=["whole", "lora"])
def test_the_control_group_and_the_evaluation_are_drawn_by_the_engine(starter: Starter, words, tmp_path, more):
    """Nothing else draws: the other backend is broken."""
    broken = Fault("rlhf.rollout.transformers:TransformersRollout.generate", 1)
    starter.run("ppo", *words, "control.enabled=true", "eval.every_steps=1", *more, fault=broken)
    require_engine_run(tmp_path / "run")
    assert all("eval/reward" in line for line in read_lines(tmp_path / "run" / "metrics.jsonl"))
    assert read_json(tmp_path / "run" / "control.json")["verdict"]


def test_greedy_answers_of_commands_are_those_of_the_other_backend(runs, configs, tmp_path):
    """`data sample` with an adapter's run, which is merged for the engine."""
    prompts = str(configs["ppo"].parent / "prompts.jsonl")
    Path(prompts).write_text("".join(f'{{"prompt": "{text}"}}\n' for text in ("안녕?", "비가 와.", "뭐 해?")))
    given = ["--model", str(runs["sft"]), "--prompts", prompts, "--temperature", "0", "--k", "2"]
    given += ["--max-new-tokens", "12", "--max-prompt-tokens", "64"]
    engine = ["--backend", "vllm", "--vllm-python", engine_python(), "--vllm-cpu-cache-gib", "0.25"]
    assert main(["data", "sample", *given, "--out", str(tmp_path / "ours.jsonl")]) == 0
    assert main(["data", "sample", *given, "--out", str(tmp_path / "theirs.jsonl"), *engine]) == 0
    ours, theirs = (read_lines(tmp_path / name) for name in ("ours.jsonl", "theirs.jsonl"))
    assert [row["responses"] for row in ours] == [row["responses"] for row in theirs]
    assert main(["evaluate", "generation", *given, "--out", str(tmp_path / "report"), *engine]) == 0
    answered = read_lines(tmp_path / "report" / "answers.jsonl")
    assert [row["responses"] for row in answered] == [row["responses"] for row in ours]


def test_the_service_answers_by_the_engine(runs):
    """The openai client: greedy text as without the engine, a seed's answer whole, streamed and beside others."""
    words = ["--model", f"friendly={runs['sft']}", "--max-batch", "3"]
    engine = ["--backend", "vllm", "--vllm-python", engine_python(), "--vllm-cpu-cache-gib", "0.25"]
    greedy, asked = {"temperature": 0, "max_tokens": 16, "logprobs": True, "top_logprobs": 2}, []
    for more in (engine, []):
        with service_process(*words, *more) as (_, said):
            url = re.search(r"serving on (\S+)", said)[1]
            create = OpenAI(base_url=url, api_key="none", max_retries=0).chat.completions.create
            chat = {"model": "friendly", "messages": [{"role": "user", "content": "오늘 뭐 해?"}]}
            asked.append(create(**chat, **greedy).choices[0])
            if more:
                sampled = create(**chat, n=3, seed=5, max_tokens=20).choices
                streamed = create(**chat, seed=5, max_tokens=20, stream=True)
                text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
                assert text == sampled[0].message.content
                assert len({choice.message.content for choice in sampled}) == 3
    theirs, ours = asked
    assert theirs.message.content == ours.message.content
    assert theirs.finish_reason == ours.finish_reason
    for their, our in zip(theirs.logprobs.content, ours.logprobs.content, strict=True):
        assert their.token == our.token
        assert their.logprob == pytest.approx(our.logprob, abs=FLOAT32_GAP)
        assert [each.token for each in their.top_logprobs] == [each.token for each in our.top_logprobs]


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
