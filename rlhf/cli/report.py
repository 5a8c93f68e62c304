"""`rlhf report`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    report = commands.add_parser(
        "report",
        help="a run as one page: verdict, curves, tripwires, answers",
        epilog="example: rlhf report runs/demo-ppo",
    )
    report.add_argument("run", metavar="RUN", help="run folder of any stage, finished or not")
    report.add_argument("--out", metavar="FILE", help="page to write (default: RUN/report.html)")
    report.set_defaults(handler=run_report)


def run_report(arguments: argparse.Namespace) -> int:
    """`rlhf report`."""
    from rlhf.evaluate.run_report import write_report

    write_report(arguments.run, arguments.out)
    return 0
