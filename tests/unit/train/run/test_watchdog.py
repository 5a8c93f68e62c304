"""What ends a rank that cannot end itself, and what a rank is asked from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from rlhf.artifacts.run_folder import FailureRecord, RankFailure, RunFolder, stop_run
from rlhf.engine.ranks import Ranks
from rlhf.engine.stop_requests import StopRequest, signals_request_stop
from rlhf.errors import ArtifactError
from rlhf.train.run.watchdog import Watchdog

CPU = torch.device("cpu")

HANGS = """
import sys, time, torch
from pathlib import Path
from types import SimpleNamespace
from rlhf.artifacts.run_folder import RunFolder
from rlhf.engine.ranks import Ranks
from rlhf.train.run import watchdog

watchdog.INTERVAL_S, watchdog.GRACE_S = 0.05, 0.1
folder = RunFolder(sys.argv[1])

def failed(reason):
    folder.set_state("failed", stage="sft", step=6, reason=reason)

def step_that_never_ends():
    time.sleep(300)

watched = watchdog.Watchdog(
    folder.path, Ranks(0, 0, 1, torch.device("cpu")), step=lambda: 6, timeout_s=float(sys.argv[2]), failed=failed
)
with watched.watching():
    time.sleep(0.5)  # not armed: loading takes as long as it takes
    print("loaded", flush=True)
    with watched.armed():
        step_that_never_ends()
"""


def test_a_step_that_does_not_end_is_named_with_its_place_and_ended(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path), "0.3"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "loaded" in done.stdout
    assert "step_that_never_ends" in done.stderr  # the stack
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["status"] == "failed"
    assert state["reason"].startswith(
        "step 7 did not end within 0.005 minutes (run.watchdog_minutes): rank 0 hangs in "
    )
    assert state["reason"].endswith("(step_that_never_ends)")
    assert "(step_that_never_ends)" in (tmp_path / "hang" / "rank-0000.txt").read_text()


def watchdog_of(folder: Path, rank: int = 0) -> Watchdog:
    return Watchdog(folder, Ranks(rank, rank, 1, CPU), step=lambda: 3, timeout_s=None, failed=pytest.fail)


def test_the_cause_is_the_first_failure_and_not_its_echo(tmp_path):
    FailureRecord(tmp_path).write(RankFailure(1, 3, "the loss is nan"))
    first, own = watchdog_of(tmp_path).cause(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"))
    assert (first, own) == (RankFailure(1, 3, "the loss is nan"), False)


def test_an_error_of_its_own_is_recorded(tmp_path):
    first, own = watchdog_of(tmp_path).cause(ValueError("a wrong shape"))
    assert (first, own) == (RankFailure(0, 3, "a wrong shape"), True)
    assert FailureRecord(tmp_path).read() == first
    assert watchdog_of(tmp_path).cause(KeyboardInterrupt())[0] == first


def test_signals_ask_and_do_not_end_the_process():
    request = StopRequest()
    before = signal.getsignal(signal.SIGTERM)
    with signals_request_stop(request):
        assert not request.requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.requested()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert request.signalled()
    assert request.reason == "SIGTERM"  # the first one
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_is_heard_by_a_thread_while_the_main_one_is_busy():
    request = StopRequest()
    with signals_request_stop(request):
        assert not request.signalled()
        signal.signal(signal.SIGTERM, lambda *_: None)  # as if Python's handler had not come to run
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signalled()
    assert request.reason == "SIGTERM"
    assert not StopRequest().signalled()


def test_outside_of_the_main_thread_signals_are_left_alone():
    def work() -> None:
        with signals_request_stop(StopRequest()):
            pass

    before = signal.getsignal(signal.SIGUSR1)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_wish_is_agreed_on_with_the_next_sum_and_changes_no_number(tmp_path):
    ranks = Ranks(0, 0, 1, CPU)
    assert ranks.global_sum(1.5, 2.0) == [1.5, 2.0]
    assert not ranks.stop.agreed
    ranks.stop.watch_file(tmp_path / "stop")
    (tmp_path / "stop").touch()
    assert not ranks.stop.agreed
    assert ranks.global_sum(1.5) == [1.5]
    assert ranks.stop.agreed
    assert ranks.stop.reason == f"the file {tmp_path}/stop"


# rlhf stop


def test_a_run_that_is_not_alive_cannot_be_stopped(tmp_path):
    RunFolder(tmp_path).set_state("finished", stage="sft", step=7)
    with RunFolder(tmp_path).locked():
        pass
    with pytest.raises(ArtifactError, match=r"no run is alive in .* \(its last state: finished\)"):
        stop_run(tmp_path)
    assert not (tmp_path / "stop").exists()
    with pytest.raises(ArtifactError, match="no run is alive in"):
        stop_run(tmp_path / "absent")


def test_a_live_run_is_asked_by_a_file_that_the_next_start_removes(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.locked():
        assert stop_run(tmp_path).startswith(f"asked process {os.getpid()} on ")
        assert folder.stop_file.exists()
        with pytest.raises(ArtifactError, match=r"has not ended after 0\.1 s"):
            stop_run(tmp_path, wait_s=0.1)
        folder.prepare(resume=True)
        assert not folder.stop_file.exists()
