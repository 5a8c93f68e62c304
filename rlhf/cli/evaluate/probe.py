"""`rlhf evaluate probe`."""

from __future__ import annotations

import argparse

from rlhf.cli.decoding_flags import add_decoding_flags
from rlhf.cli.parser import Commands

_DESCRIPTION = (
    "A red-team set in Korean: rude, hateful, self-harm, personal data and prompt injection, and harmless prompts\n"
    "that sound like them. How often a model refuses, repeats what it should not, offers support, and refuses what is\n"
    "harmless, by category with Wilson intervals; and a page of every answer."
)
_EXAMPLES = (
    "examples:\n"
    "  rlhf evaluate probe --model runs/ppo --out reports/probe/\n"
    "  before and after: ... --model runs/sft --model runs/ppo\n"
    "  a set of your own: ... --prompts mine.jsonl   (rows {prompt, category, echo?, like?})"
)


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "probe",
        help="how a model meets rude, hateful and dangerous prompts",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    command.add_argument(
        "--model", action="append", required=True, metavar="RUN", help="run folder, model folder or hub id; repeatable"
    )
    command.add_argument("--out", required=True, metavar="DIR", help="folder for probe.json, probe.html, answers.jsonl")
    command.add_argument(
        "--prompts", default="", metavar="FILE", help="rows {prompt, category, echo?, like?} (default: the shipped set)"
    )
    command.add_argument("--limit", type=int, metavar="N", help="only the first N prompts")
    add_decoding_flags(command)
    command.set_defaults(handler=run_evaluate_probe, k=1, on_bad_row="error")


def run_evaluate_probe(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate probe`."""
    from pathlib import Path

    from rlhf.cli.evaluate.asking_flags import asking_of
    from rlhf.evaluate.safety.command import evaluate_red_team

    evaluate_red_team(asking_of(arguments, arguments.model), Path(arguments.out))
    return 0
