"""`rlhf data split`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill

if TYPE_CHECKING:
    from rlhf.curate.split.command import SplitReport

LARGE = 0.05  # share of the prompts in one cluster from which the shares cannot be met well


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.split.command import SplitOptions

    sources = "JSONL, JSON, CSV or demo:NAME"
    parser.add_argument("--in", dest="sources", nargs="+", required=True, metavar="FILE", help=sources)
    folder = "folder for the files and the assignments"
    parser.add_argument("--out-dir", type=Path, required=True, metavar="DIR", help=folder)
    add_flags(parser, SplitOptions, shares="train=0.9,dev=0.05,test=0.05")


def run_data_split(arguments: argparse.Namespace) -> int:
    """`rlhf data split`."""
    from rlhf.curate.split.command import SplitOptions, split_files

    report = split_files(arguments.sources, arguments.out_dir, fill(SplitOptions, arguments))
    sys.stdout.writelines(f"{line}\n" for line in _lines(report))
    return 0


def _lines(report: SplitReport) -> list[str]:
    assignment = report.assignment
    lines = [output.summary() for output in report.outputs]
    if report.num_bad:
        lines.append(f"{report.num_bad} bad rows were skipped")
    num_prompts = len(assignment.splits)
    lines.append(f"{num_prompts} prompts in {assignment.num_clusters} clusters, the largest of {assignment.largest}")
    if assignment.largest > LARGE * num_prompts and assignment.largest > 1:
        lines.append("  one cluster is large, so the shares are rough: raise --threshold")
    if report.num_kept_assignments:
        lines.append(f"{report.num_kept_assignments} prompts were assigned before and keep their split")
    if assignment.conflicts:
        lines.append(
            f"{len(assignment.conflicts)} clusters join new prompts to earlier ones of several splits; test goes first:"
        )
        lines += [f"  {conflict}" for conflict in assignment.conflicts[:3]]
    lines.append(f"no prompt is in files of two splits ({report.num_checked} files read again)")
    return lines


COMMAND = Command(
    "split",
    "divide data into train, dev and test by prompt, the same for all stages",
    run_data_split,
    _flags,
    description="Divides files so that no test prompt, nor a near-duplicate of one, is in any training set. Give the "
    "files of all stages together, or one after the other with the same --out-dir: its assignments.jsonl records "
    "where every prompt went. Writes DIR/<name>_{train,dev,test}.jsonl with manifests.",
    epilog="example: rlhf data split --in sft.jsonl preference.jsonl prompts.jsonl --out-dir data/split",
)
