"""Benchmark results as lines for the terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.evaluate.intervals import figure_text
from rlhf.html.templates import render


def summary(report: Mapping[str, Any]) -> str:
    """A line per model and task."""
    lines = []
    for model in report["models"]:
        lines.append(model["model"])
        for name, found in model["tasks"].items():
            lines.append(
                f"  {name:<10} accuracy {figure_text(found['accuracy'])}  macro F1 {found['macro_f1']:.3f}  "
                f"commonest label {found['commonest_label']:.3f}  {found['num']} questions"
            )
    if report["left_out"]:
        lines.append(f"no file for {', '.join(report['left_out'])}")
    return "\n".join(lines)


def render_page(report: Mapping[str, Any]) -> str:
    """The whole page."""
    return render("evaluate/benchmark/page.html.j2", report=report)
