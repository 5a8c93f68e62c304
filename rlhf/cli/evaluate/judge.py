"""`rlhf evaluate judge`."""

from __future__ import annotations

import argparse

from rlhf.cli.evaluate.asking_flags import add_asking_flags, asking_of
from rlhf.cli.evaluate.judges import add_judges, endpoints_of, settings_of
from rlhf.cli.parser import Commands

_DESCRIPTION = (
    "The G-Eval table: mean points of each model by criterion, with bootstrap intervals over prompts, as Markdown,\n"
    "CSV, JSON and a page. Answers are drawn and judged now, every pair in both orders, by one or more judges whose\n"
    "agreement is measured; or the table is made again from stored scores."
)
_EXAMPLES = (
    "examples:\n"
    "  rlhf evaluate judge --model runs/sft --model runs/ppo --prompts data/prompts_dev.jsonl \\\n"
    "      --judge https://api.openai.com/v1=gpt-4o --max-cost 5 --price-in 0.0025 --price-out 0.01 --out table/\n"
    "  rlhf evaluate judge --from-scores table/scores.jsonl --out again/"
)


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "judge",
        help="the G-Eval table of models, by judges or from stored scores",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    command.add_argument(
        "--from-scores",
        metavar="FILE",
        help="rows {prompt, response, scores, criteria, model, set?, judge?}; nothing is asked of anyone",
    )
    command.add_argument(
        "--model", action="append", default=[], metavar="RUN", help="run folder, model folder or hub id; two or more"
    )
    command.add_argument("--out", required=True, metavar="DIR", help="folder for geval.md, .csv, .json, .html")
    command.add_argument(
        "--against", metavar="NAME", help="the model others are compared with (default: the best of each set)"
    )
    add_asking_flags(command, required=False)
    add_judges(command)
    command.set_defaults(handler=run_evaluate_judge)


def run_evaluate_judge(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate judge`."""
    from pathlib import Path

    from rlhf.curate.judge.criteria import load_criteria
    from rlhf.errors import ConfigError
    from rlhf.evaluate.geval.command import evaluate_judge, table_from_scores
    from rlhf.evaluate.geval.judging import judge_names

    out = Path(arguments.out)
    if arguments.from_scores:
        if arguments.model or arguments.judge or arguments.prompts:
            raise ConfigError(
                "--from-scores asks nobody", fix="leave out --model, --prompts and --judge, or --from-scores"
            )
        table_from_scores(arguments.from_scores, out, against=arguments.against, on_bad_row=arguments.on_bad_row)
        return 0
    for flag in ("model", "prompts", "judge"):
        if not getattr(arguments, flag):
            raise ConfigError(
                "is missing", where=f"--{flag}", fix=f"give --{flag}, or stored scores with --from-scores"
            )
    evaluate_judge(
        asking_of(arguments, arguments.model),
        judge_names(arguments.judge),
        endpoints_of(arguments),
        load_criteria(arguments.criteria),
        settings_of(arguments),
        out,
        weigh=arguments.weighting == "auto",
        against=arguments.against,
    )
    return 0
