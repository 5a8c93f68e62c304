"""`rlhf quickstart`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "quickstart", help="base, SFT, reward model and PPO on a tiny model, measured before and after"
    )
    command.add_argument("--out", default="runs/q", metavar="RUN", help="folder of the runs (default: %(default)s)")
    command.add_argument(
        "--data",
        metavar="DIR",
        help="your own DIR/{sft,preference,prompts}_{train,dev}.jsonl instead of the embedded data",
    )
    command.add_argument("--seed", type=int, default=17, help="seed of every stage (default: %(default)s)")
    command.add_argument(
        "--lora",
        action="store_true",
        help="train adapters on one base, and let the roles of PPO share it (ppo.roles=shared)",
    )
    command.set_defaults(handler=run_quickstart)


def run_quickstart(arguments: argparse.Namespace) -> int:
    """`rlhf quickstart`."""
    from pathlib import Path

    from rlhf.demo.quickstart import Quickstart

    data = Path(arguments.data) if arguments.data else None
    Quickstart(Path(arguments.out), data, arguments.seed, arguments.lora).run()
    return 0
