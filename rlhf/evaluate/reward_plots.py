"""Plots of the report card as inline SVG, whose text stays text so that Hangul is drawn by the reader's fonts."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Named = Sequence[tuple[str, Mapping[str, Any]]]
BLUE, GREY, RED, LINE = "#2f5d8c", "#9aa4b1", "#b3541e", "#d5dae0"
WIDTH = 4.8  # inches; the page scales it to the screen
MAX_LABEL = 30


def accuracy_plot(groups: Named) -> str:
    """A dot with its 95 % interval for each group; baselines in another colour."""
    with _figure(0.6 + 0.3 * len(groups)) as (figure, axes):
        for place, (name, each) in enumerate(groups):
            colour = RED if name.startswith("baseline") else BLUE
            axes.plot([each["low"], each["high"]], [place, place], color=colour, linewidth=2)
            axes.plot(each["accuracy"], place, "o", color=colour, markersize=6)
        axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
        _label(axes, [name for name, _ in groups])
        axes.set_xlim(0, 1)
        axes.set_xlabel("pairs in the right order (0.5 = a coin)")
        return _svg(figure)


def reliability_plot(table: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy against confidence, a dot a bin, its area by the number of pairs."""
    with _figure(3.2) as (figure, axes):
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
        return _svg(figure)


def probe_plot(probes: Named) -> str:
    """Accuracy before and after each change."""
    with _figure(0.9 + 0.34 * len(probes)) as (figure, axes):
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
        return _svg(figure)


@contextmanager
def _figure(height: float) -> Iterator[tuple[Any, Any]]:
    """A figure, `height` inches, with its one pair of axes, under this module's settings."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 10, "axes.edgecolor": GREY}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def _label(axes: Any, names: Sequence[str]) -> None:
    """One name a line, the first on top."""
    short = [name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…" for name in names]
    axes.set_yticks(range(len(names)), short)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _svg(figure: Any) -> str:
    """The figure as an <svg> element."""
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # it only measures; the browser draws
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
