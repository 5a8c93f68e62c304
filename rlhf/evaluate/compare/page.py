"""The comparison of two models on one page: the sentence, who says so, the text's measures, the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlhf.evaluate.answers.generation import Generations
from rlhf.evaluate.answers.page import (
    difference_tables,
    measure_table,
    origin,
    prompt_text,
    reference_table,
    text_tags,
)
from rlhf.evaluate.compare.statistics import TOO_MANY, Verdicts
from rlhf.evaluate.figures import STYLE, Cell, figure_cell, interval_cell, pair, rich_table, said
from rlhf.html.page import document, section

KINDS = {"judge": "judge", "reward": "reward model", "people": "people"}


def render_page(report: Mapping[str, Any], generations: Generations, verdicts: Sequence[Verdicts], shown: int) -> str:
    """The whole page; the first `shown` prompts, coloured by the view that heads it."""
    title = f"{report['second']} against {report['first']}"
    body = "".join(
        (
            f"<h1>{escape(title)}</h1>{_head(report)}{origin(report)}",
            section("Who wins", _views(report), *map(_sentence, report["views"][1:])),
            section("Measures of the text", measure_table(report), difference_tables(report)),
            section("References", reference_table(report)),
            section("Answers", _answers(generations, verdicts, shown)),
        )
    )
    return document(title, body, STYLE)


def _head(report: Mapping[str, Any]) -> str:
    kind = "good" if report["outcome"] == "better" else ""
    notes = "".join(f"<br>{escape(note)}" for note in report["notes"])
    sentence = report["sentence"]
    return f'<p class="verdict {kind}">{escape(sentence["ko"])}<br>{escape(sentence["en"])}{notes}</p>'


def _sentence(view: Mapping[str, Any]) -> str:
    notes = "".join(f"<br><small>{escape(note)}</small>" for note in view["notes"])
    return f"<p>{escape(view['sentence']['ko'])}{notes}</p>" if "sentence" in view else ""


def _views(report: Mapping[str, Any]) -> str:
    """A row a view: wins, ties, losses of the second model, and its win rate, plain and at equal length."""
    rows = []
    for view in report["views"]:
        name = f"{KINDS[view['kind']]} {view['name']}".strip()
        counts = f"{view['wins']:,} / {view['ties']:,} / {view['losses']:,}"
        if "win_rate" not in view:
            rows.append([name, counts, "nobody decided", "", "", "", ""])
            continue
        rate, needed = view["win_rate"], view["prompts_for_80_percent_power"]
        rows.append(
            [
                name,
                counts,
                _percent(rate),
                interval_cell(rate, 0.0, 1.0, 0.5),
                _controlled(view["length_controlled"]),
                _difference(view),
                _needed(needed),
            ]
        )
    if not rows:
        return ""
    head = ("", "win / tie / loss", "win rate", "", "at equal length", "difference", "prompts to tell")
    note = (
        '<p class="note">Of the second model; a tie is half a win. 95 % intervals by bootstrap over prompts, paired. '
        "At equal length: logistic regression on the difference of lengths. Difference: second minus first, points a "
        "criterion or reward units. Prompts to tell: for 80 % power at the observed size.</p>"
    )
    return rich_table(head, rows) + note


def _needed(number: int | None) -> str:
    if number is None:
        return "–"
    return f"{number:,}" if number <= TOO_MANY else f"> {TOO_MANY:,}"


def _controlled(found: Mapping[str, Any]) -> str:
    return _percent(found["win_rate"]) if "win_rate" in found else "one is always longer"


def _difference(view: Mapping[str, Any]) -> str:
    """The mean difference of scores; its unit is in the note below."""
    return figure_cell(view["difference"], "{:+.2f}".format) if "difference" in view else ""


def _percent(figure: Mapping[str, float]) -> Cell:
    return figure_cell(figure, "{:.1%}".format)


def _answers(generations: Generations, verdicts: Sequence[Verdicts], shown: int) -> str:
    """Both answers to each prompt; words the other did not say there are marked on both sides."""
    parts = []
    for row, prompt in enumerate(generations.prompts[:shown]):
        texts = [each.answers[row][0] for each in generations.sets]
        won = _winner(verdicts, row)
        boxes = []
        for number, each in enumerate(generations.sets):
            kind = "" if won is None else "won" if won == number else "lost"
            tags = ([("preferred", "good")] if won == number else []) + text_tags(texts[number], each.finished[row][0])
            boxes.append(said(each.name, texts[number], other=texts[1 - number], tags=tags, kind=kind))
        parts.append(pair(prompt_text(prompt.messages), boxes, prompt.source))
    more = len(generations.prompts) - shown
    by = _by(verdicts)
    note = f"<p>Marked: words that the other model did not say at that place.{by}</p>"
    rest = f'<p class="note">{more:,} more prompts are in answers.jsonl.</p>' if more > 0 else ""
    return note + "".join(parts) + rest


def _winner(verdicts: Sequence[Verdicts], row: int) -> int | None:
    """0 or 1 by the first view that goes prompt by prompt; None for a tie or where nobody decided."""
    for each in verdicts:
        if each.kind != "people":
            outcomes = each.outcomes[row]
            return None if not outcomes or outcomes[0] == 0.5 else int(outcomes[0] > 0.5)
    return None


def _by(verdicts: Sequence[Verdicts]) -> str:
    found = [each for each in verdicts if each.kind != "people"]
    return f" Preferred: by the {KINDS[found[0].kind]} {escape(found[0].name)}." if found else ""
