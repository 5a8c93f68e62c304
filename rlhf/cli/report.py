"""`rlhf report`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    report = commands.add_parser(
        "report",
        help="a run, or a whole project, as one page: verdict, curves, tripwires, answers",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="One HTML page that fetches nothing. Of a run: its verdict, curves and answers. Of a folder of\n"
        "runs, or of several: the verdict of the whole, which run made which, data, all stages, comparisons,\n"
        "answers side by side, and what is missing, in Korean and English.",
        epilog="examples:\n  rlhf report runs/demo-ppo\n  rlhf report runs/q\n"
        "  rlhf report runs/sft runs/reward runs/ppo cmp --out report.html",
    )
    report.add_argument(
        "folders",
        nargs="+",
        metavar="RUN",
        help="run folder of any stage, finished or not; folder that holds runs; folder of `rlhf evaluate compare`",
    )
    report.add_argument("--out", metavar="FILE", help="page to write (default: RUN/report.html; needed for several)")
    report.set_defaults(handler=run_report)


def run_report(arguments: argparse.Namespace) -> int:
    """`rlhf report`."""
    from rlhf.runs.report.command import write_report

    write_report(arguments.folders, arguments.out)
    return 0
