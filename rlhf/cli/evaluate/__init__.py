"""`rlhf evaluate`: evaluations of a model. One module per kind.

May import: evaluate, and the layers below.
"""

from __future__ import annotations

from types import ModuleType

from rlhf.cli.evaluate import benchmark, compare, generation, judge, probe, reward
from rlhf.cli.parser import Commands

KINDS: tuple[ModuleType, ...] = (reward, generation, judge, compare, probe, benchmark)


def add(commands: Commands) -> None:
    """The group and its kinds."""
    evaluate = commands.add_parser("evaluate", help="what a model is worth, in numbers with their range")
    kinds = evaluate.add_subparsers(required=True, metavar="KIND")
    for kind in KINDS:
        kind.add(kinds)
