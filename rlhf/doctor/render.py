"""Checks in the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf.doctor.checks import Check

STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim", "info": ""}


def show(sections: Mapping[str, Sequence[Check]], console: Console) -> None:
    """A table per section, then every failed check with its fix."""
    for title, checks in sections.items():
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for check in checks:
            state = "" if check.state == "info" else check.state
            table.add_row(Text(check.name), Text(state, style=STYLES[check.state]), Text(check.detail))
        console.print(table)
    failed = failures(sections)
    for check in failed:
        console.print(Text(f"{check.name}: {check.detail}\n  fix: {check.fix}"), soft_wrap=True)
    console.print(f"{len(failed)} checks failed" if failed else "no check failed", highlight=False)


def as_json(sections: Mapping[str, Sequence[Check]]) -> str:
    """Every check with its section, and whether none failed."""
    checks = [{"section": title, **asdict(check)} for title, found in sections.items() for check in found]
    return json.dumps({"passed": not failures(sections), "checks": checks}, ensure_ascii=False, indent=2)


def failures(sections: Mapping[str, Sequence[Check]]) -> list[Check]:
    return [check for checks in sections.values() for check in checks if check.state == "failed"]
