"""`rlhf evaluate generation`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlhf.cli.answer_flags import add_answer_flags, add_model_flag, add_page_flag, request_of
from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    add_model_flag(parser)
    out = "folder for generation.json, .html, answers.jsonl"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)
    add_answer_flags(parser)
    add_page_flag(parser)


def run_evaluate_generation(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate generation`."""
    request = request_of(arguments, arguments.model)
    from rlhf.evaluate.answers.command import evaluate_generation

    evaluate_generation(request, arguments.out, shown=arguments.show)
    return 0


COMMAND = Command(
    "generation",
    "answers of one or more models, measured and side by side",
    run_evaluate_generation,
    _flags,
    description="Answers of one or more models to the same prompts under the same settings, measured from the text "
    "(register, rude words, Hangul, repetition, variety, length, EOS), and perplexity where prompts come with "
    "references. Answers already in DIR from the same models, prompts and settings are used again.",
    epilog="examples:\n"
    "  rlhf evaluate generation --model runs/sft --prompts data/prompts_dev.jsonl --out reports/sft/\n"
    "  rlhf evaluate generation --model runs/sft --model runs/ppo --prompts demo:rankings_dev --out reports/both/\n"
    "  greedy: ... --temperature 0",
    files=("prompts",),
)
