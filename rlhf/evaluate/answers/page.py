"""Answers of models to the same prompts on one page: measures with intervals, then prompt by prompt side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlhf.data.korean import contains_rude
from rlhf.evaluate.answers.generation import Generations
from rlhf.evaluate.answers.measures import MEASURES, is_mixed
from rlhf.evaluate.figures import STYLE, figure_cell, interval_cell, pair, rich_table, said, told_cell
from rlhf.html.page import document, section


def render_page(report: Mapping[str, Any], generations: Generations, shown: int) -> str:
    """The whole page; the first `shown` prompts with their answers."""
    body = "".join(
        (
            f"<h1>Answers side by side</h1>{origin(report)}",
            section("Measures", measure_table(report), difference_tables(report)),
            section("References", reference_table(report)),
            section("Answers", answer_pairs(generations, shown)),
        )
    )
    return document("Answers side by side", body, STYLE)


def origin(report: Mapping[str, Any]) -> str:
    """Models, prompts and decoding settings."""
    models = "<br>".join(f"{escape(each['name'])}: {escape(each['path'])}" for each in report["models"])
    settings = ", ".join(f"{name} {value}" for name, value in report["decoding"].items())
    again = "" if report["answers_a_prompt"] == 1 else f", {report['answers_a_prompt']} answers each"
    return (
        f'<p class="path">{models}</p><p>{report["num_prompts"]:,} prompts{again}; every model was asked alike: '
        f"{escape(settings)}.</p>"
    )


def measure_table(report: Mapping[str, Any]) -> str:
    """A row a measure, two columns a model: the figure with its interval, and the interval drawn."""
    names = list(report["measures"])
    rows = []
    for key, known in MEASURES.items():
        figures = [report["measures"][name][key] for name in names]
        low, high = _axis(figures, known.percent)
        row = [known.title]
        for figure in figures:
            row += [figure_cell(figure, known.written), interval_cell(figure, low, high)]
        rows.append(row)
    meanings = "".join(f"<li><b>{escape(each.title)}</b>: {escape(each.meaning)}</li>" for each in MEASURES.values())
    head = ["", *(part for name in names for part in (name, ""))]
    note = (
        '<p class="note">95 % intervals: bootstrap over prompts, for measures of variety the jackknife. Read off the '
        "text by rule: good for comparing models, not for judging one answer.</p>"
    )
    return rich_table(head, rows) + note + f"<details><summary>What they mean</summary><ul>{meanings}</ul></details>"


def difference_tables(report: Mapping[str, Any]) -> str:
    """Each model minus the first, in percentage points where the measure is a share."""
    parts = []
    for name, gaps in report["differences"].items():
        rows = []
        shares = max(_reach(gaps[key]) for key, known in MEASURES.items() if known.percent)
        for key, known in MEASURES.items():
            gap, bound = gaps[key], shares if known.percent else _reach(gaps[key])
            rows.append([known.title, told_cell(gap, known.signed), interval_cell(gap, -bound, bound, 0.0)])
        parts.append(f"<h3>{escape(name)}</h3>{rich_table(('', 'difference', ''), rows)}")
    if not parts:
        return ""
    note = (
        '<p class="note">Points of a percentage, length in characters; bold where the interval leaves out 0. Of twelve '
        "measures of two equal models about one in two pages shows one in bold by chance.</p>"
    )
    return "".join(parts) + note


def reference_table(report: Mapping[str, Any]) -> str:
    """Perplexity and nats a character on the references."""
    if not report["references"]:
        return ""
    rows = []
    for name, found in report["references"].items():
        cells = [figure_cell(found[key], "{:.3f}".format) for key in ("perplexity", "nats_a_character")]
        rows.append([name, *cells, f"{found['num_references']:,}"])
    note = (
        '<p class="note">Perplexity is a token, so that it compares models of one tokenizer; nats a character compare '
        "any. A policy that was rewarded moves away from references; that alone is no fault.</p>"
    )
    return rich_table(("", "perplexity", "nats a character", "references"), rows) + note


def answer_pairs(generations: Generations, shown: int) -> str:
    """The first prompts; each answer's words that the first model did not say there are marked."""
    parts = []
    for row, prompt in enumerate(generations.prompts[:shown]):
        first = generations.sets[0].answers[row][0]
        boxes = []
        for number, each in enumerate(generations.sets):
            text, ended = each.answers[row][0], each.finished[row][0]
            boxes.append(said(each.name, text, other=first if number else None, tags=text_tags(text, ended)))
        parts.append(pair(prompt_text(prompt.messages), boxes, prompt.source))
    more = len(generations.prompts) - shown
    note = "<p>Marked: words that the first model did not say at that place.</p>" if len(generations.sets) > 1 else ""
    rest = f'<p class="note">{more:,} more prompts are in answers.jsonl.</p>' if more > 0 else ""
    return note + "".join(parts) + rest


def prompt_text(messages: Sequence[Any]) -> str:
    """A conversation as text; a single question stands alone."""
    if len(messages) == 1:
        return "\n".join(filter(None, (messages[0].content, messages[0].input)))
    speakers = {"system": "설정", "user": "사용자", "assistant": "챗봇"}
    return "\n".join(f"{speakers[turn.role]}: {turn.content}" for turn in messages)


def text_tags(text: str, ended: bool) -> list[tuple[str, str]]:
    """What a reader should notice of an answer."""
    tags = [("rude", "bad")] if contains_rude(text) else []
    tags += [("mixed register", "bad")] if is_mixed(text) else []
    return tags + ([] if ended else [("cut at the limit", "")])


def _reach(figure: Mapping[str, float]) -> float:
    """How far from 0 a difference and its interval reach."""
    return max(1e-9, *(abs(figure[end]) for end in ("mean", "low", "high") if not math.isnan(figure[end])))


def _axis(figures: Sequence[Mapping[str, float]], percent: bool) -> tuple[float, float]:
    if percent:
        return 0.0, 1.0
    return 0.0, max(max(each["high"], each["mean"]) for each in figures) * 1.05
