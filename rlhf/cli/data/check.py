"""`rlhf data check`: whether a file can be trained on, what is wrong with it, and what it would cost."""

from __future__ import annotations

import argparse
import json
import sys

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill
from rlhf.config.stages import STAGES


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.check.cost import Costs, Counting

    file = "JSONL, a JSON array, CSV, or a datasets folder (folder#split)"
    parser.add_argument("file", metavar="FILE", help=file)
    parser.add_argument("--stage", choices=tuple(STAGES), help="the stage it is for (default: any)")
    against = "files whose prompts should not be in this one"
    parser.add_argument("--against", nargs="+", default=[], metavar="FILE", help=against)
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="warn of rows longer than this")
    add_flags(parser.add_argument_group("tokens"), Counting)
    add_flags(parser.add_argument_group("cost"), Costs)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run_data_check(arguments: argparse.Namespace) -> int:
    """`rlhf data check`; the report's status."""
    from rlhf.curate.check.command import check_file
    from rlhf.curate.check.cost import Costs, Counting
    from rlhf.curate.check.text import render

    report = check_file(
        arguments.file,
        arguments.stage,
        against=arguments.against,
        max_length=arguments.max_length,
        counting=fill(Counting, arguments),
        costs=fill(Costs, arguments),
    )
    shown = json.dumps(report.as_dict(), ensure_ascii=False, indent=2) if arguments.json else render(report)
    sys.stdout.write(f"{shown}\n")
    return report.status


COMMAND = Command(
    "check",
    "what a file is, which stages can use it, what is wrong with it, and the cost",
    run_data_check,
    _flags,
    epilog="examples:\n"
    "  rlhf data check train.jsonl\n"
    "  rlhf data check train.jsonl --stage sft --tokenizer runs/sft/model --max-length 1024\n"
    "  rlhf data check dev.jsonl --against train.jsonl\n"
    "  rlhf data check train.jsonl --stage sft --epochs 3 --price 0.03/1k --tokens-per-second 9000 --gpus 4\n\n"
    "exit status: 0 usable, 1 not usable as it is, 2 not readable as rows (or a wrong flag)",
)
