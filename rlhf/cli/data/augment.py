"""`rlhf data augment`."""

from __future__ import annotations

import argparse

from rlhf.cli.endpoint_flags import add_endpoint_flags
from rlhf.cli.parser import Commands
from rlhf.config.flags import add_flags, fill


def add(commands: Commands) -> None:
    """The command and its flags."""
    from rlhf.curate.augment.options import AugmentOptions

    command = commands.add_parser(
        "augment",
        help="new instructions with answers, written by a language model from seeds",
        description="Writes Korean instructions with answers from seed instructions: by Self-Instruct, or by making "
        "the seeds harder step by step (Evol-Instruct). After an interruption or a spent budget, the same command "
        "continues and pays only for the rest.",
        epilog="example: rlhf data augment --method self-instruct --seeds prompts.jsonl "
        "--endpoint http://127.0.0.1:8000/v1 --model my-model --num 500 --out new.jsonl; "
        "then: rlhf data check --stage sft new.jsonl",
    )
    add_flags(command, AugmentOptions)
    add_endpoint_flags(command)
    command.set_defaults(handler=run_augment)


def run_augment(arguments: argparse.Namespace) -> int:
    """`rlhf data augment`."""
    from rlhf.curate.augment.command import run
    from rlhf.curate.augment.options import AugmentOptions
    from rlhf.curate.endpoint.options import EndpointOptions

    return run(fill(AugmentOptions, arguments), fill(EndpointOptions, arguments))
