"""Benchmark results as lines of a terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from rlhf.evaluate.figures import STYLE, figure_cell, interval_cell, rich_table
from rlhf.html.page import document, section


def summary(report: Mapping[str, Any]) -> str:
    """A line a model and task."""
    lines = []
    for model in report["models"]:
        lines.append(model["model"])
        for name, found in model["tasks"].items():
            lines.append(
                f"  {name:<10} accuracy {_share(found['accuracy'])}  macro F1 {found['macro_f1']:.3f}  "
                f"commonest label {found['commonest_label']:.3f}  {found['num']} questions"
            )
    if report["left_out"]:
        lines.append(f"no file for {', '.join(report['left_out'])}")
    return "\n".join(lines)


def render_page(report: Mapping[str, Any]) -> str:
    """The whole page."""
    shots = report["num_fewshot"]
    about = f"KoBEST by lm-eval {report['lm_eval']}, {shots} example{'' if shots == 1 else 's'} before each question."
    left_out = f"<p>No file for {escape(', '.join(report['left_out']))}.</p>" if report["left_out"] else ""
    few = f"<p>Only the first {report['limit']:,} questions a task.</p>" if report["limit"] else ""
    note = (
        '<p class="note">Accuracy with Wilson\'s 95 % interval; the line marks the share of the commonest label, which '
        "a model that reads nothing can reach. By length: log-probability divided by the choice's characters.</p>"
    )
    tables = "".join(section(model["model"], _table(model["tasks"])) for model in report["models"])
    return document("KoBEST", f"<h1>KoBEST</h1><p>{escape(about)}</p>{few}{left_out}{tables}{note}", STYLE)


def _table(tasks: Mapping[str, Any]) -> str:
    rows = []
    for name, found in tasks.items():
        by_length = found.get("accuracy_by_length")
        rows.append(
            [
                name,
                figure_cell(found["accuracy"], "{:.3f}".format),
                interval_cell(found["accuracy"], 0.0, 1.0, found["commonest_label"]),
                f"{by_length['mean']:.3f}" if by_length else "",
                f"{found['macro_f1']:.3f}",
                f"{found['commonest_label']:.3f}",
                f"{found['num']:,}",
            ]
        )
    return rich_table(("", "accuracy", "", "by length", "macro F1", "commonest label", "questions"), rows)


def _share(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
