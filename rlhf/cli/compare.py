"""`rlhf compare`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    runs, page = "run folders of one stage, finished or not", "page to write (default: %(default)s)"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=runs)
    parser.add_argument("--out", type=Path, default=Path("compare.html"), metavar="FILE", help=page)


def run_compare(arguments: argparse.Namespace) -> int:
    """`rlhf compare`."""
    from rlhf.artifacts.files import write_text
    from rlhf.html.page import require_matplotlib
    from rlhf.runs.comparison import comparison_table, read_runs, render_comparison

    records = read_runs(arguments.runs)
    sys.stdout.write(comparison_table(records))
    require_matplotlib()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out, render_comparison(records))
    sys.stdout.write(f"{arguments.out}\n")
    return 0


COMMAND = Command(
    "compare",
    "runs of one stage beside one another: curves, and the settings that differ",
    run_compare,
    _flags,
    description="Prints a table and writes a self-contained page from the files the runs left; runs may still be in "
    "progress.",
    epilog="example: rlhf compare runs/sweep/* --out compare.html",
)
