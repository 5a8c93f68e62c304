"""`rlhf data sample`."""

from __future__ import annotations

import argparse

from rlhf.cli.decoding_flags import add_decoding_flags, sampling_of
from rlhf.cli.endpoint_flags import add_endpoint_flags
from rlhf.cli.parser import Commands
from rlhf.config.flags import add_flags, fill

_DESCRIPTION = (
    "K answers per prompt from each model, with the model's hash and its decoding settings beside each answer.\n"
    "Finished answers are stored in OUT.partial, a few hundred at a time: an interrupted run continues from there\n"
    "when it is started again with the same settings."
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
    from rlhf.curate.sample.command import SampleOptions

    command = commands.add_parser(
        "sample",
        help="K answers per prompt from local models and from endpoints",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    add_flags(command, SampleOptions, skip=("dtype", "seed"))
    add_decoding_flags(command)
    add_endpoint_flags(command)
    command.set_defaults(handler=run_sample)


def run_sample(arguments: argparse.Namespace) -> int:
    """`rlhf data sample`."""
    from rlhf.curate.endpoint.options import EndpointOptions
    from rlhf.curate.sample.command import SampleOptions, run

    options = fill(SampleOptions, arguments, sampling=sampling_of(arguments))
    return run(options, fill(EndpointOptions, arguments))
