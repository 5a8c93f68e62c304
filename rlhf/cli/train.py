"""`rlhf train`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Command
from rlhf.config.stages import STAGES


def _flags(parser: argparse.ArgumentParser) -> None:
    ranks = "processes on this machine (default: one per GPU, or one on a CPU)"
    parser.add_argument("--ranks", type=int, metavar="N", help=ranks)
    parser.add_argument("stage", choices=tuple(STAGES), metavar="STAGE", help="sft, reward or ppo")
    words = "--config FILE key=value, as the stage takes them; --help lists its keys"
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help=words)


def run_train(arguments: argparse.Namespace) -> int:
    """`rlhf train`; the launcher's exit status. Mistakes in words, configuration and data are told before it starts."""
    from rlhf.config.arguments import parse_stage_arguments
    from rlhf.config.load import load_config
    from rlhf.train.run.before_start import start_problems
    from rlhf.train.run.start import start_stage

    given = parse_stage_arguments(arguments.stage, arguments.words)
    config = load_config(STAGES[arguments.stage].config, given.config_path, given.overrides)
    for problem in start_problems(config):
        raise problem
    return start_stage(arguments.stage, arguments.words, ranks=arguments.ranks)


COMMAND = Command(
    "train",
    "one stage on this machine: sft, reward or ppo",
    run_train,
    _flags,
    description="Starts the script of a stage under the `deepspeed` launcher and prints that command. "
    "Several machines: start the script by `deepspeed --hostfile ...`, or by Slurm.",
    epilog="example: rlhf train sft --config recipe:kullm-5.8b/sft data.train=my.jsonl run.dir=runs/sft",
)
