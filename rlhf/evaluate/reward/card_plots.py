"""Plots of the report card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.html.plots import BLUE, GREY, LINE, RED, figure, svg

Named = Sequence[tuple[str, Mapping[str, Any]]]
MAX_LABEL = 30


def accuracy_plot(groups: Named) -> str:
    """A dot with its 95 % interval for each group; baselines in another colour."""
    with figure(0.6 + 0.3 * len(groups)) as (drawn, axes):
        for place, (name, each) in enumerate(groups):
            colour = RED if name.startswith("baseline") else BLUE
            axes.plot([each["low"], each["high"]], [place, place], color=colour, linewidth=2)
            axes.plot(each["accuracy"], place, "o", color=colour, markersize=6)
        axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
        _label(axes, [name for name, _ in groups])
        axes.set_xlim(0, 1)
        axes.set_xlabel("pairs in the right order (0.5 = a coin)")
        return svg(drawn)


def reliability_plot(table: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy against confidence, a dot per bin, its area by the number of pairs."""
    with figure(3.2) as (drawn, axes):
        most = max(row["num_pairs"] for row in table)
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=1, linestyle="--")
        axes.scatter(
            [row["confidence"] for row in table],
            [row["accuracy"] for row in table],
            s=[20 + 160 * row["num_pairs"] / most for row in table],
            color=BLUE,
            zorder=3,
        )
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(min(0.45, *(row["accuracy"] - 0.05 for row in table)), 1.05)
        axes.set_xlabel("confidence of the model (dot area: pairs)")
        axes.set_ylabel("pairs in the right order")
        return svg(drawn)


def probe_plot(probes: Named) -> str:
    """Accuracy before and after each probe."""
    with figure(0.9 + 0.34 * len(probes)) as (drawn, axes):
        for place, (_, each) in enumerate(probes):
            ends = [each["accuracy_before"], each["accuracy"]]
            axes.plot(ends, [place, place], color=LINE, linewidth=3, zorder=1)
        places = range(len(probes))
        before, after = ([each[name] for _, each in probes] for name in ("accuracy_before", "accuracy"))
        axes.scatter(before, places, color=GREY, s=36, zorder=2, label="before")
        axes.scatter(after, places, color=BLUE, s=36, zorder=3, label="after")
        axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
        _label(axes, [name for name, _ in probes])
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("pairs in the right order")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
        return svg(drawn)


def _label(axes: Any, names: Sequence[str]) -> None:
    """One name per line, the first on top."""
    short = [name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…" for name in names]
    axes.set_yticks(range(len(names)), short)
    axes.set_ylim(len(names) - 0.5, -0.5)
