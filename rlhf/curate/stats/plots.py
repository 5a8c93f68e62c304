"""Plots of the data page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy
from markupsafe import Markup

from rlhf.html.plots import BLUE, GREY, LINE, figure, svg
from rlhf.html.words import Words, same

COLOURS = (BLUE, LINE, "#b3541e")
SCALE = ("#b3541e", "#dba07c", LINE, "#8fb0cf", BLUE)
MAX_LABEL = 22
REGISTER_NAMES = {"polite": Words("존댓말", "polite"), "mixed": Words("섞임", "mixed"), "plain": Words("반말", "plain")}
NUM_BINS = 36


def histogram(values: Sequence[int], label: str, *, language: str = "en") -> Markup:
    """The distribution of values up to the 99th percentile, with the median marked."""
    top = max(float(numpy.percentile(values, 99)), 1.0)
    with figure(2.2) as (drawn, axes):
        axes.hist([value for value in values if value <= top], bins=NUM_BINS, color=BLUE)
        axes.axvline(float(numpy.median(values)), color=GREY, linewidth=1, linestyle="--")
        axes.set_xlabel(label)
        axes.set_ylabel(getattr(Words("개수", "number"), language))
        axes.set_xlim(0, top)
        return svg(drawn)


def bars(counts: Sequence[tuple[str, float]], label: str, *, language: str = "en") -> Markup:
    """A horizontal bar per name, in the given order, with its number beside it."""
    with figure(0.7 + 0.28 * len(counts)) as (drawn, axes):
        places, values = range(len(counts)), [count for _, count in counts]
        axes.barh(places, values, color=BLUE, height=0.7)
        for place, value in zip(places, values, strict=True):
            axes.text(value, place, f" {value:,.0f}", va="center", fontsize=9)
        axes.set_yticks(places, [shortened(name) for name, _ in counts])
        axes.set_ylim(len(counts) - 0.5, -0.5)
        axes.set_xlim(0, max(values) * 1.18 or 1)
        axes.set_xlabel(label)
        return svg(drawn)


def shares(groups: Mapping[str, Mapping[str, int]], parts: Sequence[str], *, language: str = "en") -> Markup:
    """A bar of 100 % per group, divided into its parts."""
    steps = [SCALE[round(4 * place / max(len(parts) - 1, 1))] for place in range(len(parts))]
    colours = COLOURS if len(parts) == len(COLOURS) else steps
    with figure(0.95 + 0.34 * len(groups)) as (drawn, axes):
        left = numpy.zeros(len(groups))
        totals = [sum(counts.values()) or 1 for counts in groups.values()]
        for part, colour in zip(parts, colours, strict=False):
            name = getattr(REGISTER_NAMES.get(part, same(part)), language)
            width = numpy.array([c.get(part, 0) / total for c, total in zip(groups.values(), totals, strict=True)])
            axes.barh(
                range(len(groups)),
                width,
                left=left,
                color=colour,
                height=0.7,
                label=name,
            )
            left += width
        axes.set_yticks(range(len(groups)), [shortened(name) for name in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel(getattr(Words("비율", "share"), language))
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=min(len(parts), 5), frameon=False)
        return svg(drawn)


def shortened(name: str) -> str:
    """A label that leaves room for its bar: both ends of a long name, where paths differ."""
    return name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL // 2]}…{name[-(MAX_LABEL // 2 - 1) :]}"
