"""`rlhf runs`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    folders = "run folders, or folders of them (default: runs)"
    parser.add_argument("folders", nargs="*", metavar="FOLDER", default=["runs"], help=folders)


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


COMMAND = Command(
    "runs",
    "the runs of a folder: stage, status, steps, best metric, parents",
    run_runs,
    _flags,
    description="Lists runs from the files they left, the last changed first. A run is `killed` when its state says "
    "running but no process holds it: continue it with --resume auto.",
    epilog="example: rlhf runs runs/sweep runs/q",
)
