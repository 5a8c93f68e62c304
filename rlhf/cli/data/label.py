"""`rlhf data label`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.label.command import LabelOptions

    add_flags(parser, LabelOptions)
    export = "write --out from the labels made so far, and exit"
    parser.add_argument("--export-only", action="store_true", help=export)


def run_label(arguments: argparse.Namespace) -> int:
    """`rlhf data label`."""
    from rlhf.curate.label.command import Labelling, LabelOptions

    labelling = Labelling(fill(LabelOptions, arguments))
    if arguments.export_only:
        sys.stderr.write(f"{labelling.export().summary()}\n")
    else:
        labelling.run()
    labelling.store.close()
    return 0


COMMAND = Command(
    "label",
    "a page in Korean and English where people rank answers",
    run_label,
    _flags,
    description="People rank 2 to 9 answers per row in the browser, without seeing whose they are. Every click is "
    "saved in OUT.sqlite at once: stop and start as you like.",
    epilog="examples:\n"
    "  rlhf data label --in sampled.jsonl --out labels.jsonl\n"
    "  for a team: ... --annotators 지수,민호 --host 0.0.0.0 --overlap 0.2\n"
    "then: deepspeed scripts/step2_reward.py ... data.train=labels.jsonl",
)
