"""`rlhf evaluate compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rlhf.cli.answer_flags import add_answer_flags, add_page_flag, request_of
from rlhf.cli.judge_flags import add_judges, panel_of
from rlhf.cli.parser import Command
from rlhf.config.flag_values import SCORING_DTYPE, Dtype
from rlhf.config.flags import add_flags, fill

if TYPE_CHECKING:
    from rlhf.curate.label.command import LabelOptions


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.label.command import LabelOptions

    baseline = "the model to compare with: run folder, model folder or hub id"
    parser.add_argument("first", metavar="A", help=baseline)
    parser.add_argument("second", metavar="B", help="the model in question")
    out = "folder for compare.json, .html, answers.jsonl"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)
    add_answer_flags(parser)
    parser.add_argument("--reward", default="", metavar="RUN", help="a run of stage 2 whose score decides")
    parser.add_argument(
        "--reward-dtype", choices=get_args(Dtype), default="auto", help=f"{SCORING_DTYPE} (default: auto)"
    )
    people = parser.add_argument_group(
        "people", "a page that shows two answers per prompt without saying which model wrote them"
    )
    people.add_argument("--label", action="store_true", help="open the page; Ctrl-C ends it and writes the report")
    people.add_argument("--labels", default="", metavar="FILE", help="labels made before: DIR/labels.jsonl")
    add_flags(people, LabelOptions, only=("people", "host", "port", "overlap"))
    add_judges(parser)
    add_page_flag(parser)


def run_evaluate_compare(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate compare`."""
    from rlhf.errors import ConfigError

    if arguments.label and arguments.labels:
        fix = "--label continues from the labels in --out by itself"
        raise ConfigError("--label and --labels together", fix=fix)
    request, page = request_of(arguments, (arguments.first, arguments.second)), _page(arguments)
    from rlhf.evaluate.compare.command import evaluate_compare

    evaluate_compare(
        request,
        arguments.out,
        panel=panel_of(arguments) if arguments.judge else None,
        reward=arguments.reward,
        reward_dtype=arguments.reward_dtype,
        labels=arguments.labels,
        page=page,
        shown=arguments.show,
    )
    return 0


def _page(arguments: argparse.Namespace) -> LabelOptions | None:
    if not arguments.label:
        return None
    from rlhf.curate.label.command import LabelOptions, require_ui

    require_ui()
    files = {"rows": str(arguments.out / "pairs.jsonl"), "out": arguments.out / "labels.jsonl"}
    return fill(LabelOptions, arguments, **files, merge="none")


COMMAND = Command(
    "compare",
    "whether one model is better than another, or too few prompts to tell",
    run_evaluate_compare,
    _flags,
    description="Is model B better than model A? Wins, ties and losses by a judge, by a reward model and by people, "
    "with paired intervals, the win rate at equal length, and a plain sentence: better, worse, or too few prompts to "
    "tell and how many would be enough. With none of the three, the texts are measured and compared.",
    epilog="examples:\n"
    "  rlhf evaluate compare runs/sft runs/ppo --prompts data/prompts_dev.jsonl --out cmp/\n"
    "  by a judge: ... --judge http://127.0.0.1:8000/v1=my-judge\n"
    "  by a reward model PPO was not trained against: ... --reward runs/reward-held-out\n"
    "  by people, blind: ... --label --annotators 지수,민호   (kept; later: --labels cmp/labels.jsonl)",
    files=("prompts",),
)
