"""`rlhf data sample`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.answer_flags import add_answer_flags, add_prompt_flag, drawing_of
from rlhf.cli.endpoint_flags import ENDPOINT, add_endpoint_flags, budget_of, open_endpoint
from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.sample.options import SamplePlan

    add_flags(parser, SamplePlan, only=("models",), models=())
    parser.add_argument("--endpoint", metavar="URL", help=f"answers too: {ENDPOINT}")
    parser.add_argument("--endpoint-model", metavar="NAME", help="the endpoint's model")
    add_prompt_flag(parser)
    add_flags(parser, SamplePlan, only=("out",))
    add_answer_flags(parser, num_answers=4)
    add_endpoint_flags(parser)


def run_sample(arguments: argparse.Namespace) -> int:
    """`rlhf data sample`."""
    from contextlib import ExitStack

    from rlhf.curate.sample.options import SamplePlan

    _check(arguments)
    plan = fill(SamplePlan, arguments, drawing=drawing_of(arguments))
    from rlhf.curate.sample.command import sample_answers
    from rlhf.engine.ranks import workers

    with ExitStack() as stack:
        ranks = stack.enter_context(workers(arguments.seed))
        endpoint = None
        if arguments.endpoint and ranks.is_main:
            opened = open_endpoint(arguments.endpoint, arguments.endpoint_model, arguments, budget_of(arguments))
            endpoint = stack.enter_context(opened)
        report = sample_answers(plan, ranks, endpoint)
    if report:
        sys.stderr.write(f"{report}\n")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    from rlhf.errors import ConfigError

    if not arguments.model and not arguments.endpoint:
        raise ConfigError("no model is named", where="--model", fix="name a model with --model, or an --endpoint")
    if bool(arguments.endpoint) != bool(arguments.endpoint_model):
        raise ConfigError("--endpoint and --endpoint-model go together", fix="give both or neither")
    if arguments.endpoint and arguments.top_k:
        raise ConfigError("an endpoint takes no top-k", where="--top-k", fix="use --top-p, or remove the endpoint")


COMMAND = Command(
    "sample",
    "K answers per prompt from our models and from endpoints",
    run_sample,
    _flags,
    description="K answers per prompt from each model, with the model's hash and its decoding settings beside each "
    "answer. Finished answers are kept in OUT.partial, a few hundred at a time: an interrupted run continues from "
    "there when it is started again with the same settings.",
    epilog="examples:\n"
    "  rlhf data sample --model runs/sft --prompts prompts.jsonl --k 4 --out sampled.jsonl\n"
    "  two generators: ... --model runs/sft --model runs/ppo --k 2\n"
    "  with an endpoint: ... --endpoint https://api.openai.com/v1 --endpoint-model gpt-4o-mini\n"
    "  on two devices: deepspeed --num_accelerators 2 --module rlhf data sample ...\n"
    "then: rlhf data judge --in sampled.jsonl ..., or rlhf data label --in sampled.jsonl ...",
)
