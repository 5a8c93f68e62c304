"""Pieces of evaluation pages: intervals as small drawings, tables of them, and answers beside each other with what
differs marked. Everything given here is escaped here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from rlhf.evaluate.intervals import Figure, excludes_zero
from rlhf.html.differences import marked_difference

STYLE = """
body { max-width: 64rem; } p, ul, .verdict { max-width: 48rem; }
td.draw { min-width: 9rem; padding: 0 .5rem; } td.draw svg { width: 9rem; height: 1.1rem; margin: 0; max-width: none; }
td small { color: #5a6473; } .wide + .note { margin-top: .4rem; } .wide + .wide { margin-top: 1.2rem; }
.wide td:first-child, .wide th:first-child { position: sticky; left: 0; background: #fff; min-width: 5rem; }
.pair { border-top: 1px solid #e3e6ea; padding: .8rem 0; }
.pair > .asked { white-space: pre-wrap; overflow-wrap: anywhere; font-weight: 600; margin: .2rem 0 .5rem;
  max-width: none; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .7rem; }
.said { background: #f5f7f9; border-radius: .4rem; padding: .5rem .7rem; min-width: 0; }
.said h4 { margin: 0 0 .3rem; font-size: .8rem; color: #5a6473; font-weight: 600; }
.said div { white-space: pre-wrap; overflow-wrap: anywhere; }
.said.won { background: #eef7f3; } .said.lost { background: #fbf3ee; }
.said mark { background: #ffe7a8; color: inherit; border-radius: .15rem; }
.tag { display: inline-block; font-size: .75rem; padding: 0 .4rem; border-radius: .6rem; background: #e3e6ea;
  margin-left: .3rem; font-weight: 400; color: #1d2430; }
.tag.bad { background: #f6d9cb; } .tag.good { background: #cfe9df; }
details { margin: .4rem 0; } summary { cursor: pointer; }
@media (max-width: 40rem) {
  body { padding: .7rem; } .answers { grid-template-columns: 1fr; }
  td.draw, th.draw { display: none; } td small { display: block; }
}
"""


class Cell(str):
    """HTML that is in order already; any other text is escaped."""

    __slots__ = ()


def interval_cell(figure: Figure, low: float, high: float, reference: float | None = None) -> Cell:
    """The interval as a line with its mean as a dot on an axis from `low` to `high`; `reference` is a fine line."""
    if math.isnan(figure["mean"]):
        return Cell("")

    def at(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return 4 + 112 * min(1.0, max(0.0, share))

    colour = "#5a6473"
    if reference is not None:
        colour = "#b3541e" if figure["high"] < reference else "#23735a" if figure["low"] > reference else colour
    line = (
        ""
        if reference is None
        else f'<line x1="{at(reference):.1f}" x2="{at(reference):.1f}" y1="0" y2="16" stroke="#c3c9d1"/>'
    )
    ends = [figure["mean"] if math.isnan(end) else end for end in (figure["low"], figure["high"])]
    return Cell(
        f'<svg viewBox="0 0 120 16" role="img" aria-label="{figure["mean"]:.3g}">{line}'
        f'<line x1="{at(ends[0]):.1f}" x2="{at(ends[1]):.1f}" y1="8" y2="8" stroke="{colour}" stroke-width="2.5"/>'
        f'<circle cx="{at(figure["mean"]):.1f}" cy="8" r="4" fill="{colour}"/></svg>'
    )


def figure_cell(figure: Mapping[str, Any], written: Callable[[float], str]) -> Cell:
    """A figure with its interval, which stands below it on a phone."""
    mean, low, high = (escape(written(figure[end])) for end in ("mean", "low", "high"))
    return Cell(f"{mean} <small>[{low}, {high}]</small>")


def told_cell(figure: Figure, written: Callable[[float], str]) -> Cell:
    """A difference with its interval, bold where it is told from 0."""
    cell = figure_cell(figure, written)
    return Cell(f"<b>{cell}</b>") if excludes_zero(figure) else cell


def rich_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are text, or HTML as `Cell`; a drawing gets a column of its own width."""

    def cell(value: str) -> str:
        if not isinstance(value, Cell):
            return f"<td>{escape(value)}</td>"
        return f'<td class="draw">{value}</td>' if value.startswith("<svg") else f"<td>{value}</td>"

    drawn = {place for row in rows for place, value in enumerate(row) if isinstance(value, Cell) and "<svg" in value}
    top = "".join(
        f'<th class="draw">{escape(each)}</th>' if place in drawn else f"<th>{escape(each)}</th>"
        for place, each in enumerate(head)
    )
    lines = "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{lines}</table></div>'


def said(
    name: str, text: str, *, other: str | None = None, tags: Sequence[tuple[str, str]] = (), kind: str = ""
) -> str:
    """One answer in its box; `other` is what it is compared with word by word, tags are (text, good | bad | "")."""
    marks = "".join(f'<span class="tag {escape(tone)}">{escape(label)}</span>' for label, tone in tags)
    shown = escape(text) if other is None else marked_difference(text, other)
    body = shown or "<small>(empty)</small>"
    return f'<div class="said {kind}"><h4>{escape(name)}{marks}</h4><div>{body}</div></div>'


def pair(asked: str, boxes: Sequence[str], note: str = "") -> str:
    """A prompt with the answers to it side by side, or under each other on a phone."""
    small = f"<small>{escape(note)}</small>" if note else ""
    answers = f'<div class="answers">{"".join(boxes)}</div>'
    return f'<div class="pair">{small}<p class="asked">{escape(asked)}</p>{answers}</div>'
