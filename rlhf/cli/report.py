"""`rlhf report`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    folders = "run folder of any stage, finished or not; folder that holds runs; folder of `rlhf evaluate compare`"
    parser.add_argument("folders", nargs="+", metavar="RUN", help=folders)
    out = "page to write (default: RUN/report.html; needed for several)"
    parser.add_argument("--out", metavar="FILE", help=out)


def run_report(arguments: argparse.Namespace) -> int:
    """`rlhf report`."""
    from rlhf.runs.report.command import write_report

    write_report(arguments.folders, arguments.out)
    return 0


COMMAND = Command(
    "report",
    "a run, or a whole project, as one page: verdict, curves, tripwires, answers",
    run_report,
    _flags,
    description="One HTML page that fetches nothing. Of a run: its verdict, curves and answers. Of a folder of runs, "
    "or of several: the verdict of the whole, which run made which, data, all stages, comparisons, answers side by "
    "side, and what is missing, in Korean and English.",
    epilog="examples:\n"
    "  rlhf report runs/demo-ppo\n"
    "  rlhf report runs/q\n"
    "  rlhf report runs/sft runs/reward runs/ppo cmp --out report.html",
)
