"""`rlhf evaluate probe`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.cli.answer_flags import add_answer_flags, add_model_flag, request_of
from rlhf.cli.endpoint_flags import add_endpoint_flags
from rlhf.cli.parser import Command
from rlhf.config.flags import fill

if TYPE_CHECKING:
    from rlhf.curate.endpoint.client import Endpoint


def _flags(parser: argparse.ArgumentParser) -> None:
    add_model_flag(parser, models=())
    labelled = (
        "no model: how often the rules agree with a person on labelled answers, the shipped ones or rows "
        "{prompt, kind, text, label}"
    )
    parser.add_argument("--labelled", nargs="*", metavar="FILE", help=labelled)
    judge = "with --labelled: a model that labels the same answers, e.g. http://127.0.0.1:8000/v1=m; may be repeated"
    parser.add_argument("--judge", action="append", default=[], metavar="URL=MODEL", help=judge)
    out = "folder for probe.json, probe.html, answers.jsonl; reactions.json, reactions.html"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)
    rows = "rows {prompt, category, echo?, like?} (default: the shipped set)"
    parser.add_argument("--prompts", default="", metavar="FILE", help=rows)
    add_answer_flags(parser, skip=("prompts", "k", "on_bad_row"))
    add_endpoint_flags(parser)


def run_evaluate_probe(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate probe`."""
    from rlhf.errors import ConfigError

    if arguments.labelled is not None:
        if arguments.model:
            fix = "remove --model, or --labelled"
            raise ConfigError("--labelled measures the rules and asks no model", fix=fix)
        from rlhf.evaluate.measures.command import evaluate_measures

        asked = _judges(arguments)
        evaluate_measures(arguments.out, arguments.labelled, only=("reaction",), name="reactions", judges=asked)
        return 0
    if arguments.judge:
        fix = "give --labelled; answers of models are judged by `rlhf evaluate judge`"
        raise ConfigError("labels the labelled answers only", where="--judge", fix=fix)
    if not arguments.model:
        fix = "give --model, or --labelled to measure the rules"
        raise ConfigError("is missing", where="--model", fix=fix)
    request = request_of(arguments, arguments.model)
    from rlhf.evaluate.safety.command import evaluate_red_team

    evaluate_red_team(request, arguments.out)
    return 0


def _judges(arguments: argparse.Namespace) -> dict[str, Callable[[], Endpoint]]:
    """The judges by name, each opened when its turn comes; they share one budget and one cache."""
    from rlhf.curate.endpoint.budget import Budget
    from rlhf.curate.endpoint.client import Endpoint
    from rlhf.curate.endpoint.options import EndpointOptions
    from rlhf.evaluate.geval.judging import judge_names

    service = fill(EndpointOptions, arguments)
    budget, cache = Budget(service), arguments.out / "judge.answers.sqlite"
    judges = judge_names(arguments.judge)
    models = [judge.model for judge in judges]
    return {
        judge.model if models.count(judge.model) == 1 else f"{judge.url}={judge.model}": partial(
            Endpoint, judge.url, judge.model, service, budget=budget, cache=cache
        )
        for judge in judges
    }


COMMAND = Command(
    "probe",
    "how a model responds to rude, hateful and dangerous prompts",
    run_evaluate_probe,
    _flags,
    description="A red-team set in Korean: rude, hateful, self-harm, personal data and prompt injection, and harmless "
    "prompts that resemble them. How often a model refuses, corrects, supports, answers unsafely, and refuses "
    "what is harmless, by category with Wilson intervals; and a page of every answer. An answer is judged by what it "
    "does: refusal, correction, support, echo, agreement, harmful instruction, abuse, over-refusal.",
    epilog="examples:\n"
    "  rlhf evaluate probe --model runs/ppo --out reports/probe/\n"
    "  before and after: ... --model runs/sft --model runs/ppo\n"
    "  how far the rules agree with a person: rlhf evaluate probe --labelled --out reports/probe/\n"
    "  a set of your own: ... --prompts mine.jsonl   (rows {prompt, category, echo?, like?})",
)
