"""`rlhf evaluate generation`."""

from __future__ import annotations

import argparse

from rlhf.cli.evaluate.asking_flags import add_asking_flags, asking_of
from rlhf.cli.parser import Commands

_DESCRIPTION = (
    "Answers of one or more models to the same prompts under the same settings, measured off the text (register,\n"
    "rude words, Hangul, repetition, variety, length, EOS), and perplexity where prompts come with references.\n"
    "Answers already in DIR from the same models, prompts and settings are used again."
)
_EXAMPLES = (
    "examples:\n"
    "  rlhf evaluate generation --model runs/sft --prompts data/prompts_dev.jsonl --out reports/sft/\n"
    "  rlhf evaluate generation --model runs/sft --model runs/ppo --prompts demo:rankings_dev --out reports/both/\n"
    "  greedy: ... --temperature 0"
)


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "generation",
        help="answers of one or more models, measured and side by side",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    command.add_argument(
        "--model", action="append", required=True, metavar="RUN", help="run folder, model folder or hub id; repeatable"
    )
    command.add_argument("--out", required=True, metavar="DIR", help="folder for generation.json, .html, answers.jsonl")
    add_asking_flags(command)
    command.add_argument(
        "--show", type=int, default=60, metavar="N", help="prompts shown on the page (default: %(default)s)"
    )
    command.set_defaults(handler=run_evaluate_generation)


def run_evaluate_generation(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate generation`."""
    from pathlib import Path

    from rlhf.evaluate.answers.command import evaluate_generation

    evaluate_generation(asking_of(arguments, arguments.model), Path(arguments.out), shown=arguments.show)
    return 0
