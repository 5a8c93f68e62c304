"""The G-Eval table as Markdown, CSV and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from rlhf.evaluate.figures import STYLE, Cell, figure_cell, interval_cell, rich_table, told_cell
from rlhf.evaluate.geval.table import WHOLE
from rlhf.html.page import document, section

Part = Mapping[str, Any]


def render_page(table: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = "".join(section(_title(part), *_part(part)) for part in table["parts"])
    body = f"<h1>G-Eval</h1>{_head(table)}{_agreement(table)}{_judges(table)}{parts}"
    return document("G-Eval", body, STYLE)


def markdown(table: Mapping[str, Any]) -> str:
    """A table a part: criteria in columns, means with their intervals."""
    blocks = []
    for part in table["parts"]:
        head = ["model", *part["criteria"], WHOLE, "prompts"]
        lines = [f"## {_title(part)}", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
        for line in part["models"]:
            cells = [_interval(line["criteria"][name]) for name in part["criteria"]]
            values = [line["model"], *cells, f"**{_interval(line['mean'])}**", str(line["num_prompts"])]
            lines.append(f"| {' | '.join(value.replace('|', '/') for value in values)} |")
        lines += ["", *(f"- {_gap_text(gap)}" for gap in part["differences"] if "mean" in gap)]
        blocks.append("\n".join(lines).rstrip())
    agreement = [f"## {_AGREEMENT}\n\n{_alpha_text(table)}"] if "agreement" in table else []
    return "\n\n".join(["# G-Eval", _note(table), *agreement, *blocks]) + "\n"


def csv_text(table: Mapping[str, Any]) -> str:
    """A line a set, judge, model and criterion."""
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
    """A line a model for the terminal."""
    return "\n".join(_lines(table))


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    for part in table["parts"]:
        yield f"{_title(part)}: {', '.join(part['criteria'])}"
        width = max(len(line["model"]) for line in part["models"])
        for line in part["models"]:
            yield f"  {line['model']:<{width}}  {_interval(line['mean'])}  {line['num_prompts']} prompts"
    if "agreement" in table:
        yield _alpha_text(table)


_AGREEMENT = "Agreement of the judges"


def _head(table: Mapping[str, Any]) -> str:
    return f'<p>{escape(_note(table))}</p><p class="path">{escape(str(table.get("scores", "")))}</p>'


def _note(table: Mapping[str, Any]) -> str:
    return (
        f"{table['num_scores']:,} scores. Means over answers, in points, 95 % intervals by bootstrap over prompts. "
        "Differences are on the prompts that both models answered; a judge's taste is not people's."
    )


def _title(part: Part) -> str:
    return " · ".join(filter(None, (part["set"], part["judge"]))) or "all prompts"


def _part(part: Part) -> tuple[str, str]:
    lines = part["models"]
    low = min(line["mean"]["low"] for line in lines)
    high = max(line["mean"]["high"] for line in lines)
    rows = [
        [
            line["model"],
            figure_cell(line["mean"], "{:.2f}".format),
            interval_cell(line["mean"], low, high),
            *(_with_half(line["criteria"][name]) for name in part["criteria"]),
            f"{line['num_prompts']:,}",
        ]
        for line in lines
    ]
    head = ("", WHOLE, "", *part["criteria"], "prompts")
    return rich_table(head, rows), _gap_table(part)


def _gap_table(part: Part) -> str:
    gaps = [gap for gap in part["differences"] if "mean" in gap]
    if not gaps:
        return ""
    bound = max(max(abs(gap["low"]), abs(gap["high"])) for gap in gaps) or 1.0
    rows = [
        [
            gap["model"],
            told_cell(gap, "{:+.3f}".format),
            interval_cell(gap, -bound, bound, 0.0),
            f"{gap['num_prompts']:,}",
        ]
        for gap in gaps
    ]
    return rich_table((f"minus {part['against']}", "difference", "", "shared prompts"), rows)


def _agreement(table: Mapping[str, Any]) -> str:
    if "agreement" not in table:
        return ""
    found = table["agreement"]
    rows = [(name, "undefined" if alpha is None else f"{alpha:.3f}") for name, alpha in found["alpha"].items()]
    points = ", ".join(f"{judge} {mean:.2f}" for judge, mean in found["mean_points"].items())
    text = f"<p>{found['num_answers']:,} answers scored by two judges or more; mean points: {escape(points)}.</p>"
    note = '<p class="note">1 is full agreement, 0 is chance; below .667 conclusions should not rest on one judge.</p>'
    return section(_AGREEMENT, text, rich_table(("criterion", "Krippendorff's alpha"), rows), note)


def _alpha_text(table: Mapping[str, Any]) -> str:
    found = table["agreement"]
    alphas = ", ".join(
        f"{name} {'undefined' if alpha is None else f'{alpha:.3f}'}" for name, alpha in found["alpha"].items()
    )
    return f"Krippendorff's alpha of the judges on {found['num_answers']} answers: {alphas}"


def _judges(table: Mapping[str, Any]) -> str:
    """Position bias of each judge that was asked here."""
    rows = [
        (
            each["judge"],
            f"{each['first_minus_second']:+.2f}",
            f"{each['same_verdict_in_both_orders']:.0%}",
            f"{each['opposite_verdicts']:.0%}",
            f"{each['pairs_in_both_orders']:,}",
            f"{each['rows_with_equal_answers']:,}",
            f"{each['rows_unreadable']:,}",
        )
        for each in table.get("judging", [])
        if "first_minus_second" in each
    ]
    if not rows:
        return ""
    head = ("judge", "first minus second", "same verdict", "opposite", "pairs", "equal answers", "unreadable")
    note = '<p class="note">Every pair was shown in both orders. Points are sums over the criteria.</p>'
    return section("Judges", rich_table(head, rows), note)


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _with_half(figure: Mapping[str, float]) -> Cell:
    """A mean with half the width of its interval."""
    return Cell(f"{figure['mean']:.2f} <small>±{(figure['high'] - figure['low']) / 2:.2f}</small>")


def _gap_text(gap: Mapping[str, Any]) -> str:
    return (
        f"{gap['model']} minus {gap['minus']}: {gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}] "
        f"on {gap['num_prompts']} shared prompts"
    )
