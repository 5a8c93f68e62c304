"""`rlhf stop`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    stop = commands.add_parser(
        "stop",
        help="ask a live run to save after its step and end",
        description="The run, on whatever machine it is, finishes its step, leaves a checkpoint and ends with status "
        "75; --resume auto goes on from there. SIGTERM or SIGUSR1 to any rank does the same.",
        epilog="example: rlhf stop runs/q/sft --wait 120",
    )
    stop.add_argument("run", metavar="RUN", help="run folder")
    stop.add_argument(
        "--wait", metavar="SECONDS", type=float, default=0.0, help="wait so long for its end (default: 0)"
    )
    stop.set_defaults(handler=run_stop)


def run_stop(arguments: argparse.Namespace) -> int:
    """`rlhf stop`."""
    from rlhf.artifacts.run_folder import stop_run

    sys.stderr.write(stop_run(arguments.run, wait_s=arguments.wait) + "\n")
    return 0
