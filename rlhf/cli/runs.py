"""`rlhf runs`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    runs = commands.add_parser(
        "runs",
        help="the runs of a folder: stage, status, steps, best metric, parents",
        description="Lists runs from the files they left, the last changed first. A run is `killed` when its state "
        "says running but no process holds it: go on with --resume auto.",
        epilog="example: rlhf runs runs/sweep runs/q",
    )
    runs.add_argument("folders", nargs="*", metavar="FOLDER", default=["runs"], help="run folders, or folders of them")
    runs.set_defaults(handler=run_runs)


def run_runs(arguments: argparse.Namespace) -> int:
    """`rlhf runs`."""
    from pathlib import Path

    from rlhf.runs.listing import find_runs, last_change, runs_table
    from rlhf.runs.record import RunRecord

    found = [RunRecord(path) for path in find_runs([Path(folder) for folder in arguments.folders])]
    if not found:
        sys.stdout.write(f"no runs in {', '.join(arguments.folders)}\n")
        return 0
    sys.stdout.write(runs_table(sorted(found, key=last_change, reverse=True)))
    return 0
