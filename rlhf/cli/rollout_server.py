"""`rlhf rollout-server`: the engine's process, which a trainer starts by itself."""

from __future__ import annotations

import argparse
import os
import sys

from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.rollout.server.main import flags

    flags(parser)


def run_rollout_server(arguments: argparse.Namespace) -> int:
    """`rlhf rollout-server`: becomes the server, which imports nothing of this package's dependencies."""
    from rlhf.rollout.vllm.process import SERVER

    words = ["--connect", arguments.connect]
    words += [] if arguments.parent is None else ["--parent", str(arguments.parent)]
    os.execv(sys.executable, [sys.executable, str(SERVER), *words])


COMMAND = Command(
    "rollout-server",
    "the vLLM engine of a rank (stage 3 starts it itself)",
    run_rollout_server,
    _flags,
    description="The vLLM engine of one rank of stage 3 (rollout.backend=vllm). A trainer starts it by itself, in the "
    "environment that rollout.vllm.python names, as ENV/bin/python rlhf/rollout/server/main.py; that environment needs "
    "vllm, and nothing of this package's dependencies.",
)
