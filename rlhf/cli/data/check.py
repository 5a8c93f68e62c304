"""`rlhf data check`: whether a file can be trained on, what is wrong with it, and what it would cost."""

from __future__ import annotations

import argparse
import json
import sys

from rlhf.cli.parser import Commands
from rlhf.config.stages import STAGES

EPILOG = """examples:
  rlhf data check train.jsonl
  rlhf data check train.jsonl --stage sft --tokenizer runs/sft/model --max-length 1024
  rlhf data check dev.jsonl --against train.jsonl
  rlhf data check train.jsonl --stage sft --epochs 3 --price 0.03/1k --tokens-per-second 9000 --gpus 4

exit status: 0 usable, 1 not usable as it is, 2 not readable as rows (or a wrong flag)"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    check = commands.add_parser(
        "check",
        help="what a file is, which stages can use it, what is wrong with it, and the cost",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("file", metavar="FILE", help="JSONL, a JSON array, CSV, or a datasets folder (folder#split)")
    check.add_argument("--stage", choices=tuple(STAGES), help="the stage it is for (default: any)")
    check.add_argument(
        "--against", nargs="+", default=[], metavar="FILE", help="files whose prompts should not be in this one"
    )
    check.add_argument("--max-length", type=int, metavar="TOKENS", help="warn of rows longer than this")
    tokens = check.add_argument_group("tokens")
    tokens.add_argument("--tokenizer", default="", metavar="DIR", help="count with this model's (default: estimate)")
    tokens.add_argument("--template", metavar="NAME", help="template for a tokenizer without one: kullm, or a file")
    tokens.add_argument(
        "--characters-per-token",
        type=float,
        default=2.0,
        metavar="X",
        help="for the estimate; hosted models of 2023 took about 0.5 for Korean (default: %(default)s)",
    )
    cost = check.add_argument_group("cost")
    cost.add_argument("--epochs", type=float, default=1.0, metavar="N", help="default: %(default)g")
    cost.add_argument("--price", default="", metavar="AMOUNT/TOKENS", help="of training tokens, as 0.03/1k or 25/1m")
    cost.add_argument("--tokens-per-second", type=float, default=0.0, metavar="X", help="measured, all GPUs together")
    cost.add_argument("--gpus", type=int, default=1, metavar="N", help="default: %(default)s")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.set_defaults(handler=run_data_check)


def run_data_check(arguments: argparse.Namespace) -> int:
    """`rlhf data check`; the report's status."""
    from rlhf.curate.check.command import check_file
    from rlhf.curate.check.cost import Costs
    from rlhf.curate.check.text import render

    report = check_file(
        arguments.file,
        arguments.stage,
        against=arguments.against,
        max_length=arguments.max_length,
        tokenizer=arguments.tokenizer,
        template=arguments.template,
        characters_per_token=arguments.characters_per_token,
        costs=Costs(arguments.epochs, arguments.price, arguments.tokens_per_second, arguments.gpus),
    )
    shown = json.dumps(report.as_dict(), ensure_ascii=False, indent=2) if arguments.json else render(report)
    sys.stdout.write(f"{shown}\n")
    return report.status
