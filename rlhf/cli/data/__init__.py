"""`rlhf data`: from chat logs and instructions to training sets. One module per command.

May import: curate, and the layers below.
"""

from __future__ import annotations

from types import ModuleType

from rlhf.cli.data import augment, check, export, filter, import_, judge, label, sample, split, stats
from rlhf.cli.parser import Commands

COMMANDS: tuple[ModuleType, ...] = (augment, import_, check, stats, label, export, sample, judge, filter, split)


def add(commands: Commands) -> None:
    """The group and its commands."""
    data = commands.add_parser("data", help="build data: import, check, filter, split, sample, judge, label")
    kinds = data.add_subparsers(required=True, metavar="KIND")
    for command in COMMANDS:
        command.add(kinds)
