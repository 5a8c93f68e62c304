"""Plots as inline SVG, whose text stays text so that Hangul is drawn by the reader's fonts."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup

from rlhf.errors import require_packages
from rlhf.html.words import Words

BLUE, GREY, RED, LINE = "#2f5d8c", "#9aa4b1", "#b3541e", "#d5dae0"
WIDTH = 4.8  # inches; the page scales it to the screen


def require_matplotlib() -> None:
    """Raises ConfigError, naming the extra, when plots could not be drawn."""
    require_packages("matplotlib", extra="report", needed_by="the report page")


def in_both(draw: Callable[[str], Markup]) -> Words:
    """A plot with its texts in Korean and one in English: `draw` gets "ko" or "en"."""
    return Words(draw("ko"), draw("en"))


@contextmanager
def figure(height: float) -> Iterator[tuple[Any, Any]]:
    """A figure, `height` inches, with its one pair of axes, under the page's settings."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 10, "axes.edgecolor": GREY}
    with matplotlib.rc_context(settings):
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = drawn.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        yield drawn, axes


def svg(drawn: Any) -> Markup:
    """The figure as an <svg> element."""
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # it only measures; the browser draws
        drawn.savefig(text, format="svg", metadata={"Date": None})
    return Markup(text.getvalue()[text.getvalue().index("<svg") :])
