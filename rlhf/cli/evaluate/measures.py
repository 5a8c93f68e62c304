"""`rlhf evaluate measures`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    out = "folder for measures.json and measures.html"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)
    rows = "rows {measure, text, label, kind?, prompt?} of your own (default: the shipped sentences)"
    parser.add_argument("--labelled", nargs="+", default=[], metavar="FILE", help=rows)


def run_evaluate_measures(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate measures`."""
    from rlhf.evaluate.measures.command import evaluate_measures

    evaluate_measures(arguments.out, arguments.labelled)
    return 0


COMMAND = Command(
    "measures",
    "how often the rules on Korean text are right",
    run_evaluate_measures,
    _flags,
    description="Precision, recall and agreement of every rule on text with sentences labelled by hand, by category "
    "with Wilson intervals: rude words by kind of spelling, hate by group, refusals and over-refusals, register, and "
    "reactions to red-team prompts. Half of the shipped sentences were not used to write the rules; their figures come "
    "first.",
    epilog="examples:\n"
    "  rlhf evaluate measures --out reports/measures/\n"
    "  sentences of your own: ... --labelled mine.jsonl   "
    '(rows {"measure": "rude", "text": "...", "label": true, "kind": "spaced"})',
)
