"""`rlhf quickstart`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.demo.options import QuickstartOptions

    add_flags(parser, QuickstartOptions)


def run_quickstart(arguments: argparse.Namespace) -> int:
    """`rlhf quickstart`."""
    from rlhf.demo.quickstart import Quickstart

    fill(Quickstart, arguments).run()
    return 0


COMMAND = Command(
    "quickstart",
    "base model, SFT, reward model and PPO on a tiny model, measured before and after",
    run_quickstart,
    _flags,
)
