"""Which rank the watchdog names while others wait for it: two processes under gloo, and counts by hand."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.train.run.hang_reports import HangReport, described, hanging

RANK = """
import os, sys, time, torch
import torch.distributed as dist
from rlhf.artifacts.run_folder import RunFolder
from rlhf.engine.messages import Messages
from rlhf.engine.process_group import store
from rlhf.engine.ranks import Ranks
from rlhf.train.run import watchdog

watchdog.INTERVAL_S, watchdog.GRACE_S = 0.05, 1.0
rank, case, folder = int(os.environ["RANK"]), sys.argv[1], RunFolder(sys.argv[2])
dist.init_process_group("gloo")
ranks = Ranks(rank, rank, 2, torch.device("cpu"), messages=Messages(store(), rank, 2))

def failed(reason):
    folder.set_state("failed", stage="sft", step=6, reason=reason)

def endless_work():
    time.sleep(300)

def reads_a_number_from_the_gpu(work):
    while not work.is_completed():
        time.sleep(0.01)

def step():
    ranks.global_sum(1.0)
    if case == "a collective":
        if rank == 1:
            endless_work()
        reads_a_number_from_the_gpu(dist.all_reduce(torch.ones(2), async_op=True))
    elif case == "rank 0 alone":
        ranks.on_main(endless_work)

watched = watchdog.Watchdog(folder.path, ranks, step=lambda: 6, timeout_s=0.5, failed=failed)
with watched.watching(), watched.armed():
    step()
"""


@pytest.mark.parametrize(
    ("case", "guilty", "place"), [("a collective", 1, "endless_work"), ("rank 0 alone", 0, "on_main")]
)
def test_the_rank_that_did_not_arrive_is_named(tmp_path: Path, case: str, guilty: int, place: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", RANK, case, str(tmp_path)]
    started = [
        subprocess.Popen(command, env={**common, "RANK": str(rank)}, stderr=subprocess.DEVNULL) for rank in range(2)
    ]
    try:
        assert [each.wait(timeout=120) for each in started] == [1, 1]
    finally:
        for each in started:
            each.kill()
    reason = json.loads((tmp_path / "state.json").read_text())["reason"]
    named, waiting = reason.partition("(run.watchdog_minutes): ")[2].split("; ")
    assert named.startswith(f"rank {guilty} hangs in ")
    assert named.endswith(f"({place})")
    assert waiting.startswith(f"rank {1 - guilty} waits for others in ")
    assert json.loads((tmp_path / ".failure.json").read_text())["rank"] == guilty


def report(rank: int, *, waits: bool = True, **arrived: int) -> HangReport:
    return HangReport(rank, f"a.py:{rank} (f)", waits, arrived)


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        # Rank 1 has begun one sum less; neither stack tells.
        ([report(0, waits=False, world=5), report(1, waits=False, world=4)], [1]),
        # Rank 2 hangs; rank 1 waits for it in the pair of both, and rank 0 in the world for rank 1.
        ([report(0, world=5), report(1, world=4, pair=3), report(2, world=4, pair=2)], [2]),
        # A rank that does not answer comes before one that arrived less often.
        ([report(0, world=5), None, report(2, world=4)], [1, 2]),
        # All have arrived: the stack decides.
        ([report(0, world=5), report(1, waits=False, world=5)], [1]),
        # Rank 0 works alone, and the others wait for its message.
        ([report(0, waits=False, world=5, messages=2), report(1, world=5, messages=3)], [0]),
        ([report(0, waits=False)], [0]),
        ([report(0, world=5), report(1, world=5)], []),
    ],
)
def test_ranks_that_others_wait_for(reports: list[HangReport | None], expected: list[int]) -> None:
    assert hanging(reports) == expected


def test_those_that_hang_come_first() -> None:
    text = described([report(0, world=5), None, report(2, world=4)])
    assert text == "rank 1 does not answer; rank 2 hangs in a.py:2 (f); rank 0 waits for others in a.py:0 (f)"
