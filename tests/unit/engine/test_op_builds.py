"""The lock around builds of DeepSpeed's ops, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.engine import op_builds as builds
from rlhf.engine.op_builds import op_builds, op_cache
from rlhf.errors import TrainingError

WAITER = """
import sys
from rlhf.engine.op_builds import op_builds
with op_builds("op"):
    print("in", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("PATH", os.environ["PATH"])


def builder() -> subprocess.Popen[str]:
    """Another process, in a build once it has said so, until a line is written to it."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", WAITER], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def test_a_build_is_waited_for_and_its_lock_file_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with op_builds("op"):
        pass  # names the cache in the environment, where the other process finds it too
    lock = op_cache() / "cpu_adam" / "lock"
    other = builder()
    try:
        lock.parent.mkdir()
        lock.touch()  # as torch does while it compiles
        waiting = subprocess.Popen([sys.executable, "-c", WAITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        assert lock.exists()
        other.communicate("\n", timeout=60)
        assert waiting.communicate(b"\n", timeout=60)[0] == b"in\n"
        assert not lock.exists()  # nobody builds: it was left behind
    finally:
        other.kill()


def test_a_killed_builder_does_not_block_the_next_one() -> None:
    other = builder()
    other.kill()
    other.wait()
    with op_builds("op"):
        assert os.environ["TORCH_EXTENSIONS_DIR"] == str(op_cache())


def test_lock_files_in_a_cache_of_the_user_are_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs build there too, without our lock."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "shared"))
    lock = tmp_path / "shared" / "op" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    with op_builds("op"):
        assert lock.exists()


def test_a_wait_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(builds, "NOTICE_S", 0.0)
    with op_builds("CPU optimizer"):
        while not (said := capsys.readouterr().err):
            pass
    assert "building DeepSpeed's CPU optimizer in" in said


def test_a_cache_that_cannot_be_made_is_an_error_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file" / "cache"))
    with (
        pytest.raises(TrainingError, match="set TORCH_EXTENSIONS_DIR to a folder that can be written"),
        op_builds("op"),
    ):
        pass
