"""`rlhf quickstart`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.demo.options import QuickstartOptions

    add_flags(parser, QuickstartOptions)


def run_quickstart(arguments: argparse.Namespace) -> int:
    """`rlhf quickstart`; status 1 when an arm of --arms is not finished."""
    from rlhf.demo.quickstart import Quickstart

    quickstart = fill(Quickstart, arguments)
    if not quickstart.arms:
        quickstart.run()
        return 0
    from rlhf.demo.arms import quickstart_arms

    comparison = quickstart_arms(quickstart)
    comparison.prepare(earlier=[str(quickstart.out / name) for name in ("base", "sft")])
    quickstart.run()
    return comparison.run()


COMMAND = Command(
    "quickstart",
    "base model, SFT, reward model and PPO on a tiny model, measured before and after",
    run_quickstart,
    _flags,
)
