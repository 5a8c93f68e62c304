"""Starts a stage's script, or a command, under the `deepspeed` launcher on this machine."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence

from rlhf.config.shipped import SCRIPTS
from rlhf.config.stages import STAGES

LAUNCHER_LEVEL = "error"  # of the launcher's own lines, a dozen per start below it


def start_stage(stage: str, arguments: Sequence[str], *, ranks: int | None = None) -> int:
    """Runs a stage to its end and returns the launcher's exit status; the outcome is in the run's state.json.

    ranks: processes; None leaves it to the launcher, which takes every GPU, or one process on CPUs.
    """
    return _launched([str(SCRIPTS / STAGES[stage].script), *arguments], ranks)


def start_command(words: Sequence[str], *, ranks: int | None = None) -> int:
    """Runs `rlhf` with these words under the launcher, as `start_stage`; returns the exit status."""
    return _launched(["--module", "rlhf", *words], ranks)


def _launched(words: Sequence[str], ranks: int | None) -> int:
    options = ["--log_level", LAUNCHER_LEVEL]
    options += [] if ranks is None else ["--num_accelerators", str(ranks)]
    sys.stderr.write(f"deepspeed {shlex.join([*options, *words])}\n")
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--master_port", str(free_port())]
    return subprocess.run([*launcher, *options, *words], check=False).returncode


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
