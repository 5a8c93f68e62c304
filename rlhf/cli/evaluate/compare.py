"""`rlhf evaluate compare`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rlhf.cli.evaluate.asking_flags import add_asking_flags, asking_of
from rlhf.cli.evaluate.judges import add_judges, endpoints_of, settings_of
from rlhf.cli.parser import Commands

if TYPE_CHECKING:
    from rlhf.evaluate.compare.command import JudgePanel
    from rlhf.evaluate.compare.label_page import LabelPage

_DESCRIPTION = (
    "Is model B better than model A? Wins, ties and losses by a judge, by a reward model and by people, with paired\n"
    "intervals, the win rate at equal length, and a plain sentence: better, worse, or cannot be told with this many\n"
    "prompts and how many would tell. With none of the three, the texts are measured and compared."
)
_EXAMPLES = (
    "examples:\n"
    "  rlhf evaluate compare runs/sft runs/ppo --prompts data/prompts_dev.jsonl --out cmp/\n"
    "  by a judge: ... --judge http://127.0.0.1:8000/v1=my-judge\n"
    "  by a reward model PPO was not trained against: ... --reward runs/reward-held-out\n"
    "  by people, blind: ... --label --annotators 지수,민호   (kept; later: --labels cmp/labels.jsonl)"
)


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "compare",
        help="whether one model is better than another, or cannot be told from it",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    command.add_argument("first", metavar="A", help="the model to compare with: run folder, model folder or hub id")
    command.add_argument("second", metavar="B", help="the model in question")
    command.add_argument("--out", required=True, metavar="DIR", help="folder for compare.json, .html, answers.jsonl")
    add_asking_flags(command)
    command.add_argument("--reward", default="", metavar="RUN", help="a run of stage 2 whose score decides")
    people = command.add_argument_group(
        "people", "a page on which they see two answers a prompt and not whose they are"
    )
    people.add_argument("--label", action="store_true", help="open the page; Ctrl-C ends it and writes the report")
    people.add_argument("--labels", default="", metavar="FILE", help="labels made before: DIR/labels.jsonl")
    people.add_argument("--annotators", default="", metavar="NAMES", help="a link a person, e.g. 지수,민호")
    people.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    people.add_argument("--port", type=int, default=7861, help="port; 0 takes a free one (default: %(default)s)")
    people.add_argument(
        "--overlap",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of pairs everyone gets (default: %(default)s)",
    )
    add_judges(command)
    command.add_argument(
        "--show", type=int, default=60, metavar="N", help="prompts shown on the page (default: %(default)s)"
    )
    command.set_defaults(handler=run_evaluate_compare)


def run_evaluate_compare(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate compare`."""
    from pathlib import Path

    from rlhf.errors import ConfigError
    from rlhf.evaluate.compare.command import evaluate_compare

    if arguments.label and arguments.labels:
        raise ConfigError("--label and --labels together", fix="--label goes on from the labels in --out by itself")
    evaluate_compare(
        asking_of(arguments, (arguments.first, arguments.second)),
        Path(arguments.out),
        panel=_panel(arguments),
        reward=arguments.reward,
        labels=arguments.labels,
        page=_page(arguments),
        shown=arguments.show,
    )
    return 0


def _panel(arguments: argparse.Namespace) -> JudgePanel | None:
    if not arguments.judge:
        return None
    from rlhf.curate.judge.criteria import load_criteria
    from rlhf.evaluate.compare.command import JudgePanel
    from rlhf.evaluate.geval.judging import judge_names

    return JudgePanel(
        judge_names(arguments.judge),
        endpoints_of(arguments),
        load_criteria(arguments.criteria),
        settings_of(arguments),
        weigh=arguments.weighting == "auto",
    )


def _page(arguments: argparse.Namespace) -> LabelPage | None:
    if not arguments.label:
        return None
    from rlhf.curate.label.command import require_ui
    from rlhf.evaluate.compare.label_page import LabelPage

    require_ui()
    names = tuple(name.strip() for name in arguments.annotators.split(",") if name.strip())
    return LabelPage(arguments.host, arguments.port, names, arguments.overlap)
