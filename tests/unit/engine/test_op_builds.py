"""One lock around every build of an op: two processes, one of which builds."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.engine import op_builds
from rlhf.engine.op_builds import OpCache, guard_op_builds
from rlhf.errors import TrainingError

BUILDER = """
import sys
from pathlib import Path
from rlhf.engine.op_builds import OpCache

cache = Path(sys.argv[1])
with OpCache(cache, own=True).locked("cpu_adam op"):
    (cache / "cpu_adam").mkdir(exist_ok=True)
    (cache / "cpu_adam" / "lock").touch()  # as torch does
    print("builds", flush=True)
    sys.stdin.read()  # until its parent closes the pipe
    (cache / "cpu_adam" / "lock").unlink()
"""
STARTER = """
import sys
from pathlib import Path
from rlhf.engine import op_builds

op_builds.NOTICE_S = 0.1
cache = Path(sys.argv[1])
with op_builds.OpCache(cache, own=True).locked("comm op"):
    print("left" if (cache / "cpu_adam" / "lock").exists() else "clean", flush=True)
"""


def started(code: str, cache: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, str(cache)], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_build_that_runs_is_waited_for_with_a_notice_and_keeps_its_lock(tmp_path: Path) -> None:
    builder = started(BUILDER, tmp_path)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "builds\n"
    starter = started(STARTER, tmp_path)
    assert starter.stderr is not None
    assert starter.stderr.readline().startswith(f"building DeepSpeed's comm op in {tmp_path}, or waiting for another")
    assert (tmp_path / "cpu_adam" / "lock").exists()
    assert starter.poll() is None
    assert builder.communicate(timeout=60)[1] == ""  # it found its lock, and removed it
    assert starter.communicate(timeout=60)[0] == "clean\n"


def test_the_lock_of_a_build_that_was_killed_is_removed(tmp_path: Path) -> None:
    builder = started(BUILDER, tmp_path)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "builds\n"
    builder.send_signal(signal.SIGKILL)
    builder.wait(timeout=60)
    assert (tmp_path / "cpu_adam" / "lock").exists()
    assert started(STARTER, tmp_path).communicate(timeout=60)[0] == "clean\n"


def test_locks_in_a_cache_of_others_are_left(tmp_path: Path) -> None:
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam" / "lock").touch()
    with OpCache(tmp_path, own=False).locked("comm op"):
        assert (tmp_path / "cpu_adam" / "lock").exists()


def test_every_builder_of_deepspeed_builds_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.ops.op_builder.builder import OpBuilder

    monkeypatch.setattr(OpBuilder, "jit_load", OpBuilder.jit_load)  # put back at the end
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    held = []

    class Probe(OpBuilder):
        """An op that cannot be built; it is asked so at the start of a build."""

        def absolute_name(self) -> str:
            return "rlhf.probe"

        def sources(self) -> list[str]:
            return []

        def is_compatible(self, verbose: bool = False) -> bool:
            with (tmp_path / "rlhf.lock").open("w") as other:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(True)
            return False

    guard_op_builds()
    guard_op_builds()  # a second session of the process must not wait for the lock of the first
    with pytest.raises(RuntimeError, match="Unable to JIT load the probe op"):
        Probe("probe").load()
    assert held == [True]


def test_a_cache_is_our_own_unless_the_user_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    ours = op_builds._cache()
    assert ours.own
    assert ours.path.is_relative_to(tmp_path / ".cache" / "rlhf" / "extensions")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(ours.path))  # as a session sets it
    assert op_builds._cache() == ours
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "shared"))
    assert op_builds._cache() == OpCache(tmp_path / "shared", own=False)


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="TORCH_EXTENSIONS_DIR"), OpCache(tmp_path / "file", own=True).locked("op"):
        pass
