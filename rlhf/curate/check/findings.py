"""Findings of a check: one per kind of problem, with its severity, places and fix; and the report that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

import yaml

from rlhf.curate.check.seen import KeyMatches

Stage = Literal["sft", "reward", "ppo", "dpo"]
Status = Literal[0, 1, 2]
Severity = Literal["error", "warning", "note"]
MAX_PLACES = 5  # shown per finding
MAX_SHOWN = 400  # characters of a detail, a title or a fix
MAX_GROUPS = 12  # findings of one code with different titles; further ones are merged
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
_SOURCE = (resources.files("rlhf.curate.check") / "findings.yaml").read_text(encoding="utf-8")
RULES: dict[str, dict[str, Any]] = yaml.safe_load(_SOURCE)  # severity, title and fix


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A line of the file (0: the file as a whole), and what was found there."""

    line: int
    detail: str = ""


@dataclass(slots=True)
class Finding:
    """One kind of problem: how often it occurs, and its first few occurrences."""

    code: str
    severity: Severity
    title: str
    fix: str
    count: int = 0
    places: list[Occurrence] = field(default_factory=list)


class Findings:
    """Collects findings in bounded memory."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}

    def add(self, code: str, line: int, detail: str = "", *, title: str = "", fix: str = "", count: int = 1) -> None:
        """Counts a problem at a line; `title` and `fix` replace those of the rule."""
        rule = RULES[code]
        detail, title, fix = printable(detail), printable(title), printable(fix)
        key = (code, title)
        if key not in self._found and sum(known == code for known, _ in self._found) >= MAX_GROUPS:
            key, title = (code, "other"), f"{rule['title']}, for other reasons"
        if key not in self._found:
            self._found[key] = Finding(code, rule["severity"], title or rule["title"], fix or rule["fix"])
        finding = self._found[key]
        finding.count += count
        if len(finding.places) < MAX_PLACES and (line or detail):
            finding.places.append(Occurrence(line, detail))

    def add_matches(self, code: str, matches: KeyMatches, where: str, *, title: str = "") -> None:
        """Counts rows that match other rows; `where` comes before the line of the other row."""
        for index, (line, other) in enumerate(matches.first):
            count = 1 if index else matches.total - len(matches.first) + 1
            self.add(code, line, f"{where}{other}", title=title, count=count)

    def count_of(self, code: str) -> int:
        """How often a kind of problem occurs, over all its titles."""
        return sum(finding.count for finding in self._found.values() if finding.code == code)

    def sorted(self) -> list[Finding]:
        """Errors first, then by count."""
        return sorted(self._found.values(), key=lambda finding: (_ORDER[finding.severity], -finding.count))


def printable(text: str) -> str:
    """Text of a file for display: invisible characters are escaped, long text is truncated."""
    shown = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in shown)


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
