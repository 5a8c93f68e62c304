"""Names of the metrics that the stages log, read from `metrics.yaml` beside this file; docs/metrics.md is its table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import yaml

PLACE = "NAME"  # stands for the name of a data source or a reward source

Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, or a family of metrics whose name holds PLACE. Texts are by language, `en` and `ko`; `healthy` is
    empty where no value is known to be good, and `when` is empty where every step logs the metric."""

    name: str
    stages: tuple[str, ...]
    unit: Texts
    meaning: Texts
    healthy: Texts = field(default_factory=dict)
    when: Texts = field(default_factory=dict)

    @property
    def is_family(self) -> bool:
        return PLACE in self.name

    def covers(self, logged: str) -> bool:
        """Whether a logged name is this metric, or one of the family."""
        return re.fullmatch(re.escape(self.name).replace(PLACE, ".+"), logged) is not None


@cache
def metrics() -> tuple[Metric, ...]:
    """Every metric, in the order of the table."""
    entries = yaml.safe_load((files("rlhf.config") / "metrics.yaml").read_text(encoding="utf-8"))
    return tuple(Metric(**{**each, "stages": tuple(each["stages"])}) for each in entries)


@cache
def metric_of(logged: str) -> Metric | None:
    """The metric that a logged name belongs to; None for a name that no stage logs."""
    return next((each for each in metrics() if each.covers(logged)), None)
