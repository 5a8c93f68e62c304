"""`rlhf stop`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder")
    wait = "wait at most this long for its end (default: 0)"
    parser.add_argument("--wait", metavar="SECONDS", type=float, default=0.0, help=wait)


def run_stop(arguments: argparse.Namespace) -> int:
    """`rlhf stop`."""
    from rlhf.artifacts.stopping import stop_run

    sys.stderr.write(stop_run(arguments.run, wait_s=arguments.wait) + "\n")
    return 0


COMMAND = Command(
    "stop",
    "ask a running run to save after its step and end",
    run_stop,
    _flags,
    description="The run, on whatever machine it is, finishes its step, saves a checkpoint and ends with status 75; "
    "--resume auto continues from there. SIGTERM or SIGUSR1 to any rank does the same.",
    epilog="example: rlhf stop runs/q/sft --wait 120",
)
