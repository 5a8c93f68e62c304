"""The report of a check, and its text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf.curate.check.findings import Finding

Stage = Literal["sft", "reward", "ppo"]
Status = Literal[0, 1, 2]
LABEL = 10


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

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"findings": [finding.as_dict() for finding in self.findings]}


def render(report: CheckReport) -> str:
    """The whole report, ending in the verdict."""
    lines = [report.path, *(f"  {name:<{LABEL}}{text}" for name, text in _facts(report))]
    for finding in report.findings:
        lines += ["", *_finding_lines(finding, report.path)]
    return "\n".join([*lines, "", _verdict(report)])


def _facts(report: CheckReport) -> Iterator[tuple[str, str]]:
    if report.format:
        yield "format", report.format
    if report.rows:
        bad = f", {report.bad_rows:,} of them cannot be used" if report.bad_rows else ""
        yield "rows", f"{report.rows:,}{bad}"
    if report.stages:
        yield "stages", ", ".join(f"{name} {count:,} rows" for name, count in report.stages.items())
    if report.roles:
        yield "turns", ", ".join(f"{role} {count:,}" for role, count in report.roles.items() if count)
    if report.hangul_share is not None:
        yield "Hangul", f"{report.hangul_share:.1%} of the letters"
    if tokens := report.tokens:
        sizes = f"per row: median {tokens['median']:,}, 95 % up to {tokens['p95']:,}, longest {tokens['longest']:,}"
        yield "tokens", f"{tokens['total']:,} ({tokens['method']})"
        yield "", sizes
    if report.cost:
        yield "cost", _cost(report.cost)


def _cost(cost: dict[str, float | str]) -> str:
    text = f"{cost['epochs']:g} epoch{'s' * (cost['epochs'] != 1)}: {cost['trained_tokens']:,} tokens"
    if "cost" in cost:
        text += f", {cost['cost']:,.2f} at {cost['price']}"
    if "gpu_hours" in cost:
        text += f", {cost['hours']:,.2f} h on {cost['gpus']} GPU{'s' * (cost['gpus'] != 1)}"
        text += f" = {cost['gpu_hours']:,.2f} GPU hours"
    return text


def _finding_lines(finding: Finding, path: str) -> Iterator[str]:
    number = f"{finding.count:,} " if finding.count > 1 or finding.places else ""
    yield f"  {finding.severity.upper():<{LABEL}}{number}{finding.title}"
    for place in finding.places:
        where = f"{path}:{place.line}" if place.line else ""
        yield f"  {'':<{LABEL}}  {'  '.join(filter(None, (where, place.detail)))}"
    if finding.fix:
        yield f"  {'':<{LABEL}}fix: {finding.fix}"


def _verdict(report: CheckReport) -> str:
    if report.status == 0:
        return f"usable for {', '.join(report.usable_for)}"
    what = "not readable as rows" if report.status == 2 else "not usable as it is"
    return f"{what} for {report.stage}" if report.stage and report.status == 1 else what
