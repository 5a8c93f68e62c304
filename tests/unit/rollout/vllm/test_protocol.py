"""Trainer and engine over the real socket, with an engine process that has neither vLLM nor this package."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rlhf.config.sections import SamplingSection
from rlhf.errors import ConfigError, EngineError
from rlhf.rollout.server.wire import PROTOCOL
from rlhf.rollout.vllm.client import VllmRollout, occurrences, request_groups, stream_seed
from rlhf.rollout.vllm.process import EngineProcess
from rlhf.rollout.vllm.start import check_versions
from rlhf.rollout.vllm.transport import SharedMemory
from tests.support.launcher import REPOSITORY

TOY = [sys.executable, str(REPOSITORY / "tests" / "support" / "toy_engine.py")]
VOCABULARY = 11
EOS = 3


class Bigram(nn.Module):
    """The toy engine's model on this side."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.table = nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, generator=generator))
        self.unused = nn.Parameter(torch.ones(3))


@pytest.fixture
def engine(tmp_path):
    """Makes rollouts of toy engines, and ends them."""
    made = []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"vocab_size": VOCABULARY}))

    def make(fault="", timeout_s=60.0, start_timeout_s=60.0, **options):
        process = EngineProcess(
            TOY,
            tmp_path / "rollout" / "engine-rank0.log",
            variables={"TOY_ENGINE": fault},
            timeout_s=timeout_s,
            start_timeout_s=start_timeout_s,
        )
        made.append(process)
        process.greet(
            lambda versions: check_versions(versions, kind="shared_memory"), {"model": str(tmp_path / "model")}
        )
        settings = {"bucket_bytes": 2**20, "ends_for": lambda stops: None, "eos": (EOS,)} | options
        return VllmRollout(process, transport_of=SharedMemory, dtype=torch.float32, vocabulary=VOCABULARY, **settings)

    yield make
    for process in made:
        process.close()


def expected_scores(model, rows):
    known = model.table.detach().log_softmax(-1)
    return [known[row[:-1], row[1:]].numpy() for row in rows]


def sampling(**options):
    return SamplingSection(**{"max_new_tokens": 8, **options})


def prompts(*rows):
    return [np.asarray(row, np.int32) for row in rows]


def test_answers_are_those_of_the_pushed_weights(engine):
    rollout, model = engine(), Bigram()
    assert rollout.push(model) is None
    assert rollout.check(expected_scores(model, rollout.check_rows())) < 1e-6
    drawn = rollout.generate(
        prompts([1, 2], [5], [9, 9, 7]), [(1, row, 0) for row in range(3)], sampling(temperature=0.7)
    )
    known = (model.table.detach() / 0.7).log_softmax(-1)
    for last, tokens, logprobs, finished in zip((2, 5, 7), drawn.tokens, drawn.logprobs, drawn.finished, strict=True):
        assert (tokens.dtype, logprobs.dtype) == (np.int32, np.float32)
        before = [last, *tokens.tolist()[:-1]]
        np.testing.assert_allclose(logprobs, known[before, tokens.tolist()].numpy(), atol=1e-5)
        assert finished == (tokens[-1] == EOS)
        assert EOS not in tokens[:-1]


def test_an_answer_depends_on_its_stream_alone(engine):
    rollout = engine()
    rollout.push(Bigram())
    asked = prompts([1, 2], [5], [1, 2], [1, 2])
    streams = [(1, 4, 0), (1, 9, 0), (1, 4, 1), (1, 4, 3)]
    together = rollout.generate(asked, streams, sampling())
    for item, (prompt, stream) in enumerate(zip(asked, streams, strict=True)):
        alone = rollout.generate([prompt], [stream], sampling())
        assert alone.tokens[0].tolist() == together.tokens[item].tolist()
    assert together.tokens[0].tolist() != together.tokens[2].tolist()


def test_an_answer_ends_at_the_first_stop_text_or_eos_of_several(engine):
    rollout = engine(eos=(EOS, 6), ends_for=lambda stops: (lambda tokens: tokens[-1] == 8) if stops else None)
    rollout.push(Bigram())
    asked = [np.asarray([token], np.int32) for token in range(VOCABULARY)]
    streams = [(2, token, 0) for token in range(VOCABULARY)]
    drawn = rollout.generate(asked, streams, sampling(max_new_tokens=30, stop=["x"]))
    ends = {int(tokens[-1]) for tokens, finished in zip(drawn.tokens, drawn.finished, strict=True) if finished}
    assert ends == {EOS, 6, 8}
    assert not any({EOS, 6, 8} & set(tokens[:-1].tolist()) for tokens in drawn.tokens)
    assert [len(tokens) for tokens in drawn.tokens] == [len(logprobs) for logprobs in drawn.logprobs]


def test_answers_are_taken_later(engine):
    rollout = engine()
    rollout.push(Bigram())
    asked, streams = prompts([1], [2]), [(1, 0, 0), (1, 1, 0)]
    pending = rollout.start(asked, streams, sampling())
    later = pending.result()
    assert [each.tolist() for each in later.tokens] == [
        each.tolist() for each in rollout.generate(asked, streams, sampling()).tokens
    ]


def test_nothing_asked_is_nothing_drawn(engine):
    rollout = engine()
    assert rollout.generate([], [], sampling()).tokens == []


@pytest.mark.parametrize("fault", ["withholds", "alters"])
def test_one_tensor_that_is_missing_or_wrong_is_an_error_after_the_first_push(engine, fault):
    rollout, model = engine(fault), Bigram()
    rollout.push(model)
    with pytest.raises(EngineError, match=r"differ from the trainer's by .* nats on average and .* at most"):
        rollout.check(expected_scores(model, rollout.check_rows()))
    assert not rollout.checked


def test_weights_go_in_buckets_of_the_configured_size(engine):
    rollout, model = engine(bucket_bytes=4 * VOCABULARY**2), Bigram()
    rollout.push(model)
    log = rollout.process.log.read_text()
    assert "bucket table\nbucket unused\n" in log
    path = re.findall(r"transport shared_memory \d+ (\S+)", log)
    assert [Path(each).exists() for each in path] == [False]


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ("dies", r"ended with exit status 9[\s\S]*out of memory, it says here[\s\S]*engine-rank0\.log"),
        ("raises", r"failed: RuntimeError: the kernel is not there"),
    ],
)
def test_an_engine_that_dies_says_so_with_its_log(engine, fault, match):
    rollout = engine(fault)
    with pytest.raises(EngineError, match=match):
        rollout.generate(prompts([1]), [(1, 0, 0)], sampling())


def test_an_engine_killed_in_mid_rollout(engine):
    rollout = engine("hangs")
    pending = rollout.start(prompts([1]), [(1, 0, 0)], sampling())
    os.kill(rollout.process.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="ended with signal SIGKILL"):
        pending.result()


def test_an_engine_that_hangs(engine):
    rollout = engine("hangs", timeout_s=1.0)
    with pytest.raises(EngineError, match=r"rollout\.vllm\.timeout_s: .*did not answer \(answers\) within 1 s"):
        rollout.generate(prompts([1]), [(1, 0, 0)], sampling())


def test_an_engine_that_does_not_start_in_time(engine):
    with pytest.raises(EngineError, match=r"rollout\.vllm\.start_timeout_s: .*did not answer \(hello\) within 1 s"):
        engine("never greets", start_timeout_s=1.0)


def test_a_failure_in_a_push_is_returned_so_that_other_ranks_go_on(engine):
    rollout = engine()
    os.kill(rollout.process.pid, signal.SIGKILL)
    assert "ended with signal SIGKILL" in str(rollout.push(Bigram()))


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (
            "protocol",
            rf"rollout\.vllm\.python: the engine speaks protocol {PROTOCOL + 1}, the trainer {PROTOCOL}[\s\S]*"
            "the trainer's copy",
        ),
        ("version", r"rollout\.vllm\.python: the engine's environment has vllm 0\.12\.0[\s\S]*not the trainer's"),
    ],
)
def test_a_wrong_version_says_which_side_to_change(engine, fault, match):
    with pytest.raises(ConfigError, match=match):
        engine(fault)


def test_a_busy_engine_ends_with_a_trainer_that_is_killed(tmp_path):
    """It is building its model and reads no socket."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"vocab_size": VOCABULARY}))
    log = tmp_path / "log"
    code = (
        "import sys\nfrom pathlib import Path\nfrom rlhf.rollout.vllm.process import EngineProcess\n"
        f"engine = EngineProcess({TOY!r}, Path({str(log)!r}), variables={{'TOY_ENGINE': 'never starts'}}, "
        "timeout_s=60, start_timeout_s=60)\n"
        f"print(engine.pid, flush=True)\nengine.greet(lambda versions: None, {{'model': {str(tmp_path / 'model')!r}}})"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    trainer = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
    assert trainer.stdout is not None
    pid = int(trainer.stdout.readline())
    while "settings" not in log.read_text():
        time.sleep(0.05)
    assert _runs(pid)
    trainer.kill()
    trainer.wait()
    deadline = time.monotonic() + 30
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_answers_to_one_prompt_are_one_request_where_their_numbers_follow():
    asked = prompts([1, 2], [5], [1, 2], [1, 2], [1, 2])
    streams = [(7, 0), (8, 0), (7, 1), (7, 3), (9, 2)]
    found = request_groups(asked, streams, greedy=False)
    assert sorted(map(sorted, found)) == [[0, 2], [1], [3], [4]]
    many = request_groups(prompts([1]) * 600, [(7, number) for number in range(600)], greedy=False)
    assert [len(group) for group in many] == [256, 256, 88]
    assert request_groups(asked, streams, greedy=True) == [[0], [1], [2], [3], [4]]


def test_seeds_follow_the_stream():
    assert stream_seed((1, 2, 3)) == stream_seed((1, 2, 3)) != stream_seed((1, 2, 4))
    assert occurrences("abaab") == [0, 0, 1, 2, 1]
