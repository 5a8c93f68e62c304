"""`rlhf evaluate probe`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlhf.cli.answer_flags import add_answer_flags, add_model_flag, request_of
from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    add_model_flag(parser)
    out = "folder for probe.json, probe.html, answers.jsonl"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)
    rows = "rows {prompt, category, echo?, like?} (default: the shipped set)"
    parser.add_argument("--prompts", default="", metavar="FILE", help=rows)
    add_answer_flags(parser, skip=("prompts", "k", "on_bad_row"))


def run_evaluate_probe(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate probe`."""
    request = request_of(arguments, arguments.model)
    from rlhf.evaluate.safety.command import evaluate_red_team

    evaluate_red_team(request, arguments.out)
    return 0


COMMAND = Command(
    "probe",
    "how a model responds to rude, hateful and dangerous prompts",
    run_evaluate_probe,
    _flags,
    description="A red-team set in Korean: rude, hateful, self-harm, personal data and prompt injection, and harmless "
    "prompts that resemble them. How often a model refuses, repeats what it should not, offers support, and refuses "
    "what is harmless, by category with Wilson intervals; and a page of every answer.",
    epilog="examples:\n"
    "  rlhf evaluate probe --model runs/ppo --out reports/probe/\n"
    "  before and after: ... --model runs/sft --model runs/ppo\n"
    "  a set of your own: ... --prompts mine.jsonl   (rows {prompt, category, echo?, like?})",
)
