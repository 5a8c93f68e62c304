"""Objects between two ranks through the store of the process group."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
import torch

from rlhf.engine.messages import RankLeftError, breaks_connection

RANK = """
import json, os, sys, time, torch
import torch.distributed as dist
from rlhf.engine.messages import Messages, RankLeftError, breaks_connection
from rlhf.engine.process_group import store

rank, said = int(os.environ["RANK"]), {}
dist.init_process_group("gloo")
messages = Messages(store(), rank, 2)
said["gathered"] = [messages.gather([rank, "가"]) for _ in range(3)]
said["main"] = [messages.from_main(value if rank == 0 else None) for value in ("a", {"b": 1})]
messages.gather(None)
if rank == 0:
    used = [f"{number}{end}" for number in range(1, 7) for end in ("", "/0", "/1", "/read")]
    while any(messages._store.check([key]) for key in used):  # until the last reader of all has deleted them
        time.sleep(0.01)
said["number"] = messages.number
messages.gather(None)
if rank == 0:
    messages.from_main("the last message")
else:
    time.sleep(1.0)
dist.destroy_process_group()
if rank == 1:
    said["last"] = messages.from_main(None)
if sys.argv[1] == "an error":
    if rank == 1:
        try:
            messages.gather(None)
        except RankLeftError as error:
            said["error"] = str(error)
messages.leave(failed=sys.argv[1] == "an error")
print(json.dumps(said))
"""


def outcomes(end: str) -> list[dict[str, Any]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", RANK, end]
    started = [
        subprocess.Popen(command, env={**common, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        texts = [each.communicate(timeout=120)[0] for each in started]
    finally:
        for each in started:
            each.kill()
    assert [each.returncode for each in started] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in texts]


@pytest.fixture(scope="module")
def failed() -> list[dict[str, Any]]:
    return outcomes("an error")


def test_every_rank_gets_the_same_and_nothing_is_left_in_the_store(failed: list[dict[str, Any]]) -> None:
    for said in failed:
        assert said["gathered"] == [[[0, "가"], [1, "가"]]] * 3
        assert said["main"] == ["a", {"b": 1}]
        assert said["number"] == 6


def test_rank_0_stays_until_its_last_message_is_read(failed: list[dict[str, Any]]) -> None:
    assert failed[1]["last"] == "the last message"


def test_a_rank_that_left_after_an_error_is_not_waited_for(failed: list[dict[str, Any]]) -> None:
    assert failed[1]["error"] == "rank 0 has left after an error"


def test_ranks_part_in_peace() -> None:
    assert outcomes("no error")[1]["last"] == "the last message"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RankLeftError("rank 1 has left"), True),
        (torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"), True),
        (RuntimeError("a wrong shape"), False),
        (ValueError("NCCL"), False),
    ],
)
def test_errors_that_the_end_of_another_rank_causes(error: BaseException, expected: bool) -> None:
    assert breaks_connection(error) == expected
