"""The result of all.py as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

State = Mapping[str, float]


def table(result: Mapping[str, Any]) -> str:
    """The machine, a line for each measure, the parts' times, and what was not measured."""
    rows = result["rows"]
    blocks = [_heading(result)]
    figures = [_figure(each) for each in rows if "value" in each]
    if figures:
        blocks.append(lines(("measure", "compared with", "figure (range over rounds)", "load", "clock drift"), figures))
    missing = [f"- {each['work']['en']} ({each['key']}): {each['missing']}" for each in rows if "missing" in each]
    if missing:
        blocks.append("Not measured:\n\n" + "\n".join(missing))
    parts = [
        (name, f"{part['minutes']:.1f}", *_state(part["machine"]))
        for name, part in result["parts"].items()
        if "minutes" in part
    ]
    if parts:
        blocks.append(lines(("part", "minutes", "load", "clock drift"), parts))
    versions = [(side, ", ".join(f"{n} {v}" for n, v in found.items())) for side, found in result["versions"].items()]
    blocks.append(lines(("side", "versions"), versions))
    return "\n\n".join(blocks) + "\n"


def _heading(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    tried = " One short round of each: the figures mean nothing." if result["quick"] else ""
    kind = f"{machine['cores']} cores ({machine['processor']})"
    said = f"Measured {result['measured']} on {kind}, rows: {result['data']}."
    if "drift" in machine:
        said += (
            f" Load average {machine['load_mean']:.1f} on average, {machine['load_max']:.1f} at most; the same matrix "
            f"product took from {machine['product_s']:.2f} s to {machine['drift']:.0%} more."
        )
    return said + tried


def _figure(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["work"]["en"], row["against"]["en"], ratio(row, " to "), *_state(row["machine"])


def ratio(row: Mapping[str, Any], between: str) -> str:
    """A value with its range over the rounds, where there is one."""
    low, high = row.get("range") or (None, None)
    if low is None or high is None:
        return f"{row['value']:.2f}"
    return f"{row['value']:.2f} ({low:.2f}{between}{high:.2f})"


def _state(machine: State) -> tuple[str, str]:
    if not machine:
        return "-", "-"
    return f"{machine['load_mean']:.1f}", f"{machine['drift']:.0%}"


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    every = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in every)
