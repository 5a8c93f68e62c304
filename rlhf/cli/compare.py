"""`rlhf compare`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    compare = commands.add_parser(
        "compare",
        help="runs of one stage beside one another: curves, and the settings that differ",
        description="Prints a table and writes a page that stands alone, from the files the runs left; runs may still "
        "be going on.",
        epilog="example: rlhf compare runs/sweep/* --out compare.html",
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders of one stage, finished or not")
    compare.add_argument("--out", default="compare.html", metavar="FILE", help="page to write (default: %(default)s)")
    compare.set_defaults(handler=run_compare)


def run_compare(arguments: argparse.Namespace) -> int:
    """`rlhf compare`."""
    from pathlib import Path

    from rlhf.artifacts.files import write_text
    from rlhf.html.plots import require_matplotlib
    from rlhf.runs.comparison import comparison_table, read_runs, render_comparison

    records = read_runs([Path(run) for run in arguments.runs])
    sys.stdout.write(comparison_table(records))
    require_matplotlib()
    page = Path(arguments.out)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, render_comparison(records))
    sys.stdout.write(f"{page}\n")
    return 0
