"""`rlhf evaluate`: how good a model is. One module per kind of evaluation.

May import: evaluate, and the layers below.
"""

from __future__ import annotations

from rlhf.cli.evaluate import benchmark, compare, generation, judge, measures, probe, reward
from rlhf.cli.parser import Group

MODULES = (reward, generation, judge, compare, probe, measures, benchmark)
GROUP = Group("evaluate", "how good a model is, in numbers with their range", tuple(each.COMMAND for each in MODULES))
