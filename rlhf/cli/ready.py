"""`rlhf ready`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Command
from rlhf.config.stages import STAGES, stage_named
from rlhf.errors import ConfigError


def _flags(parser: argparse.ArgumentParser) -> None:
    stages = (*STAGES, *(stage.step for stage in STAGES.values()))
    parser.add_argument("stage", choices=stages, metavar="STAGE", help="sft, reward or ppo")
    parents = "later: the runs it starts from need not exist yet (default: %(default)s)"
    parser.add_argument("--parents", choices=("now", "later"), default="now", help=parents)
    after = "with --parents later: the run folder of a stage that comes first; may be repeated"
    parser.add_argument("--after", action="append", default=[], metavar="RUN", help=after)
    words = "--config FILE key=value, as the stage takes them"
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help=words)


def run_ready(arguments: argparse.Namespace) -> int:
    """`rlhf ready`."""
    from rlhf.config.arguments import parse_stage_arguments
    from rlhf.config.load import load_config

    stage = stage_named(arguments.stage)
    given = parse_stage_arguments(stage.name, arguments.words)
    config = load_config(stage.config, given.config_path, given.overrides)
    from rlhf.train.run.before_start import chain_problems

    unknown = arguments.parents == "later" and not arguments.after  # what comes first is not named
    if problems := chain_problems({stage.name: config}, earlier=None if unknown else arguments.after):
        raise ConfigError.collect(problems)
    if arguments.parents == "now":
        from rlhf.train.run.readiness import require_parents

        require_parents(config)
    sys.stdout.write(f"{config.run.dir}\n")
    return 0


COMMAND = Command(
    "ready",
    "whether a stage may start: configuration, parents, reward model",
    run_ready,
    _flags,
    description="Checks a stage's configuration, its data files, its warm-up and its models, that the runs it starts "
    "from are finished, and that the reward model passes reward.min_accuracy; prints the run folder. Nothing is "
    "loaded. Job scripts call it first.",
    epilog="example: rlhf ready ppo --config configs/kullm-5.8b/ppo.yaml train.lr=1e-6",
)
