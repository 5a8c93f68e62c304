"""`rlhf evaluate judge`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlhf.cli.answer_flags import add_answer_flags, add_model_flag, request_of
from rlhf.cli.judge_flags import add_judges, panel_of
from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    scores = "rows {prompt, response, scores, criteria, model, set?, judge?}; no model and no judge is asked"
    parser.add_argument("--from-scores", metavar="FILE", help=scores)
    add_model_flag(parser, models=())
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for geval.md, .csv, .json, .html"
    )
    against = "the model others are compared with (default: the best of each set)"
    parser.add_argument("--against", metavar="NAME", help=against)
    add_answer_flags(parser, prompts="")
    add_judges(parser)


def run_evaluate_judge(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate judge`."""
    from rlhf.errors import ConfigError

    if arguments.from_scores and (arguments.model or arguments.judge or arguments.prompts):
        fix = "remove --model, --prompts and --judge, or --from-scores"
        raise ConfigError("--from-scores asks no model and no judge", fix=fix)
    for flag in () if arguments.from_scores else ("model", "prompts", "judge"):
        if not getattr(arguments, flag):
            fix = f"give --{flag}, or stored scores with --from-scores"
            raise ConfigError("is missing", where=f"--{flag}", fix=fix)
    from rlhf.evaluate.geval.command import evaluate_judge, table_from_scores

    if arguments.from_scores:
        rows = {"against": arguments.against, "on_bad_row": arguments.on_bad_row}
        table_from_scores(arguments.from_scores, arguments.out, **rows)
        return 0
    request, panel = request_of(arguments, arguments.model), panel_of(arguments)
    evaluate_judge(request, panel, arguments.out, against=arguments.against)
    return 0


COMMAND = Command(
    "judge",
    "the G-Eval table of models, by judges or from stored scores",
    run_evaluate_judge,
    _flags,
    description="The G-Eval table: mean points of each model by criterion, with bootstrap intervals over prompts, as "
    "Markdown, CSV, JSON and a page. Answers are drawn and judged now, every pair in both orders, by one or more "
    "judges whose agreement is measured; or the table is made again from stored scores.",
    epilog="examples:\n"
    "  rlhf evaluate judge --model runs/sft --model runs/ppo --prompts data/prompts_dev.jsonl \\\n"
    "      --judge https://api.openai.com/v1=gpt-4o --max-cost 5 --price-in 0.0025 --price-out 0.01 --out table/\n"
    "  rlhf evaluate judge --from-scores table/scores.jsonl --out again/",
    files=("prompts",),
)
