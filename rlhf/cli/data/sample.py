"""`rlhf data sample`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.decoding_flags import add_decoding_flags, sampling_of
from rlhf.cli.endpoint_flags import add_endpoint_flags, budget_of, open_endpoint
from rlhf.cli.parser import Commands

_DESCRIPTION = (
    "K answers a prompt from each model, with the model's hash and its decoding settings beside each answer.\n"
    "Finished answers are kept in OUT.partial, a few hundred at a time: an interrupted run goes on from there when it\n"
    "is started again with the same settings."
)
_EXAMPLES = (
    "examples:\n"
    "  rlhf data sample --model runs/sft --prompts prompts.jsonl --k 4 --out sampled.jsonl\n"
    "  two generators: ... --model runs/sft --model runs/ppo --k 2\n"
    "  with an endpoint: ... --endpoint https://api.openai.com/v1 --endpoint-model gpt-4o-mini\n"
    "  on two devices: deepspeed --num_accelerators 2 --module rlhf.cli data sample ...\n"
    "then: rlhf data judge --in sampled.jsonl ..., or rlhf data label --in sampled.jsonl ..."
)


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "sample",
        help="K answers a prompt from our models and from endpoints",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    command.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="RUN",
        help="run folder, model folder or hub id; may be repeated",
    )
    command.add_argument(
        "--endpoint", metavar="URL", help="chat endpoint that answers too, e.g. http://127.0.0.1:8000/v1"
    )
    command.add_argument("--endpoint-model", metavar="NAME", help="the endpoint's model")
    command.add_argument("--prompts", required=True, metavar="FILE", help="prompts, or any rows that hold prompts")
    command.add_argument("--out", required=True, metavar="FILE", help="file to write (JSONL)")
    command.add_argument("--k", type=int, default=4, metavar="K", help="answers a model (default: %(default)s)")
    add_decoding_flags(command)
    command.add_argument("--limit", type=int, metavar="N", help="only the first N usable prompts")
    command.add_argument(
        "--on-bad-row", choices=("error", "skip"), default="error", help="at a bad row (default: %(default)s)"
    )
    add_endpoint_flags(command)
    command.set_defaults(handler=run_sample)


def run_sample(arguments: argparse.Namespace) -> int:
    """`rlhf data sample`."""
    from contextlib import ExitStack
    from pathlib import Path

    from rlhf.curate.sample.command import SamplePlan, sample_answers
    from rlhf.curate.sample.sources import Drawing
    from rlhf.engine.ranks import workers

    _check(arguments)
    plan = SamplePlan(
        prompts=arguments.prompts,
        out=Path(arguments.out),
        models=tuple(arguments.model),
        drawing=Drawing(sampling_of(arguments), arguments.k, arguments.seed),
        dtype=arguments.dtype,
        limit=arguments.limit,
        on_bad_row=arguments.on_bad_row,
    )
    with ExitStack() as stack:
        ranks = stack.enter_context(workers(arguments.seed))
        endpoint = None
        if arguments.endpoint and ranks.is_main:
            opened = open_endpoint(arguments.endpoint, arguments.endpoint_model, arguments, budget_of(arguments))
            endpoint = stack.enter_context(opened)
        told = sample_answers(plan, ranks, endpoint)
    if told:
        sys.stderr.write(f"{told}\n")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    from rlhf.errors import ConfigError

    if not arguments.model and not arguments.endpoint:
        raise ConfigError("nobody is asked", where="--model", fix="name a model with --model, or an --endpoint")
    if bool(arguments.endpoint) != bool(arguments.endpoint_model):
        raise ConfigError("--endpoint and --endpoint-model go together", fix="give both or neither")
    if arguments.endpoint and arguments.top_k:
        raise ConfigError("an endpoint takes no top-k", where="--top-k", fix="use --top-p, or leave the endpoint out")
    if arguments.k < 1:
        raise ConfigError(f"is {arguments.k}", where="--k", expected="at least 1")
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"is {arguments.limit}", where="--limit", expected="at least 1")
