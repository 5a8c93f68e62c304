"""The G-Eval table as Markdown, CSV, a page, and lines for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from rlhf.evaluate.geval.table import WHOLE
from rlhf.evaluate.intervals import figure_text
from rlhf.html.templates import render

AGREEMENT = "Agreement of the judges"


def render_page(table: Mapping[str, Any]) -> str:
    """The whole page."""
    return _rendered("evaluate/geval/page.html.j2", table)


def markdown(table: Mapping[str, Any]) -> str:
    """A table per part: criteria in columns, means with their intervals."""
    return _rendered("evaluate/geval/table.md.j2", table)


def csv_text(table: Mapping[str, Any]) -> str:
    """A line per set, judge, model and criterion."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("set", "judge", "model", "criterion", "mean", "low", "high", "num_answers", "num_prompts"))
    for part in table["parts"]:
        for line in part["models"]:
            for name, figure in [*line["criteria"].items(), (WHOLE, line["mean"])]:
                ends = (f"{figure[end]:.4f}" for end in ("mean", "low", "high"))
                counts = (line["num_answers"], line["num_prompts"])
                writer.writerow((part["set"], part["judge"], line["model"], name, *ends, *counts))
    return file.getvalue()


def summary(table: Mapping[str, Any]) -> str:
    """A line per model for the terminal."""
    return "\n".join(_lines(table))


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    for part in table["parts"]:
        yield f"{title_of(part)}: {', '.join(part['criteria'])}"
        width = max(len(line["model"]) for line in part["models"])
        for line in part["models"]:
            yield f"  {line['model']:<{width}}  {figure_text(line['mean'], '.2f')}  {line['num_prompts']} prompts"
    if "agreement" in table:
        yield agreement_text(table["agreement"])


def _rendered(template: str, table: Mapping[str, Any]) -> str:
    note = (
        f"{table['num_scores']:,} scores. Means over answers, in points, 95 % intervals by bootstrap over prompts. "
        "Differences are on the prompts that both models answered. A judge's preferences are not people's."
    )
    return render(
        template,
        table=table,
        note=note,
        whole=WHOLE,
        title_of=title_of,
        agreement_title=AGREEMENT,
        agreement_text=agreement_text,
        figure_text=figure_text,
    )


def title_of(part: Mapping[str, Any]) -> str:
    """The set and the judge of a part."""
    return " · ".join(filter(None, (part["set"], part["judge"]))) or "all prompts"


def agreement_text(agreement: Mapping[str, Any]) -> str:
    """Krippendorff's alpha by criterion, in a sentence."""
    alphas = ", ".join(
        f"{name} {'undefined' if alpha is None else f'{alpha:.3f}'}" for name, alpha in agreement["alpha"].items()
    )
    return f"Krippendorff's alpha of the judges on {agreement['num_answers']} answers: {alphas}"
