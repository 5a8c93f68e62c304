"""The report of a check, and its text for a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf.curate.check.findings import Finding
from rlhf.html.templates import render

Stage = Literal["sft", "reward", "ppo"]
Status = Literal[0, 1, 2]


@dataclass(slots=True)
class CheckReport:
    """The result of a check. `status`: 0 usable, 1 not usable as it is, 2 not readable as rows.

    `stages` counts the rows that each stage can train on; `usable_for` names the stages that can take the whole file.
    `tokens` holds the total, and the median, 95th percentile and maximum per row; `cost` is that of `Costs.of`.
    """

    path: str
    stage: Stage | None = None
    status: Status = 0
    format: str = ""
    rows: int = 0
    bad_rows: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    usable_for: list[str] = field(default_factory=list)
    roles: dict[str, int] = field(default_factory=dict)
    hangul_share: float | None = None
    tokens: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def render_text(report: CheckReport) -> str:
    """The whole report for a terminal, ending in the verdict."""
    return render("curate/check/report.txt.j2", report=report)
