"""`rlhf data`: from chat logs and instructions to training sets. One module per command.

May import: curate, and the layers below.
"""

from __future__ import annotations

from rlhf.cli.data import augment, check, export, filter, import_, judge, label, sample, split, stats
from rlhf.cli.parser import Group

MODULES = (augment, import_, check, stats, label, export, sample, judge, filter, split)
GROUP = Group(
    "data",
    "build data: import, check, filter, split, sample, judge, label",
    tuple(module.COMMAND for module in MODULES),
)
