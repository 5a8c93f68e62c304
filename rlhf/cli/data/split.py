"""`rlhf data split`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from rlhf.cli.flag_types import similarity
from rlhf.cli.parser import Commands

if TYPE_CHECKING:
    from rlhf.curate.split.command import SplitReport

LARGE = 0.05  # share of the prompts in one cluster from which the shares cannot be met well


def add(commands: Commands) -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "split",
        help="divide data into train, dev and test by prompt, the same for all stages",
        description="Divides files so that no test prompt, nor a near-duplicate of one, is in any training set. Give "
        "the files of all stages together, or one after the other with the same --out-dir: its assignments.jsonl "
        "remembers where every prompt went. Writes DIR/<name>_{train,dev,test}.jsonl with manifests.",
        epilog="example: rlhf data split --in sft.jsonl preference.jsonl prompts.jsonl --out-dir data/split",
    )
    parser.add_argument(
        "--in", dest="sources", nargs="+", required=True, metavar="FILE", help="JSONL, JSON, CSV or demo:NAME"
    )
    parser.add_argument("--out-dir", required=True, metavar="DIR", help="folder for the files and the assignments")
    parser.add_argument(
        "--shares",
        type=_shares,
        default="train=0.9,dev=0.05,test=0.05",
        metavar="NAME=SHARE,...",
        help="of train, dev and test; they sum to 1 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=17, help="another seed, another split (default: %(default)s)")
    parser.add_argument(
        "--threshold",
        type=similarity,
        default=0.5,
        metavar="T",
        help="prompts whose TF-IDF of character 2-3-grams has a cosine of T or more stay together; 1 takes equal "
        "prompts only (default: %(default)s)",
    )
    parser.add_argument(
        "--on-bad-row", choices=("error", "skip"), default="error", help="at a bad row (default: %(default)s)"
    )
    parser.set_defaults(handler=run_data_split)


def run_data_split(arguments: argparse.Namespace) -> int:
    """`rlhf data split`."""
    from pathlib import Path

    from rlhf.curate.split.command import SplitOptions, split_files

    options = SplitOptions(arguments.shares, arguments.seed, arguments.threshold, arguments.on_bad_row)
    report = split_files(arguments.sources, Path(arguments.out_dir), options)
    sys.stdout.writelines(f"{line}\n" for line in _lines(report))
    return 0


def _lines(report: SplitReport) -> list[str]:
    assignment = report.assignment
    lines = [output.summary() for output in report.outputs]
    if report.num_bad:
        lines.append(f"{report.num_bad} bad rows were left out")
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


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            shares[name.strip()] = float(number)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r}; expected NAME=SHARE, as in train=0.9") from None
    return shares
