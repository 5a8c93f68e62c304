"""The statistics of data files as a page and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
from markupsafe import Markup

from rlhf.artifacts.files import write_text
from rlhf.curate.stats import plots
from rlhf.curate.stats.counts import REGISTERS, Stats, quantiles
from rlhf.errors import DataError
from rlhf.html.plots import in_both
from rlhf.html.templates import render
from rlhf.html.words import Words, in_language

LENGTHS = {
    Words("프롬프트당 글자", "characters per prompt"): "prompt_characters",
    Words("답변당 글자", "characters per answer"): "answer_characters",
    Words("행당 토큰", "tokens per row"): "row_tokens",
}
LABELS = {
    "best is longer": Words("좋은 답변이 더 김", "best is longer"),
    "best is more polite": Words("좋은 답변이 더 정중함", "best is more polite"),
    "best is listed first": Words("좋은 답변이 먼저 나옴", "best is listed first"),
    "answers are equal": Words("답변이 같음", "answers are equal"),
}
MAX_SOURCES = 15
ROWS, ANSWERS = Words("{:,}행", "{:,} rows"), Words("답변 {}개", "{} answers")


def render_page(stats: Stats) -> str:
    """The whole page."""
    sources: list[tuple[str | Words, int]] = [*stats.sources.most_common(MAX_SOURCES)]
    if rest := stats.sources.total() - sum(count for _, count in sources):
        sources.append((Words("나머지", "all others"), rest))
    labels = [(title, f"{stats.labels[name] / (stats.labels['compared'] or 1):.1%}") for name, title in LABELS.items()]
    grades = {name: _rounded(counts) for name, counts in stats.scores.items()}
    return render(
        "curate/stats/page.html.j2",
        **_figures(stats),
        drawn=drawn_plot,
        registers=REGISTERS,
        sources=sources,
        turns=[(str(number), count) for number, count in sorted(stats.turns.items())[:MAX_SOURCES]],
        topics=[(" · ".join(topic.terms[:2]) or Words("기타", "other"), topic.size) for topic in stats.topics],
        labels=[*labels, (Words("모두 동점", "tied throughout"), ROWS.format(stats.labels["tied throughout"]))],
        sizes=[(ANSWERS.format(number), count) for number, count in sorted(stats.answers_per_row.items())],
        grade_counts=grades,
        grades=sorted({grade for counts in grades.values() for grade in counts}, key=int),
    )


def drawn_plot(kind: str, *values: Any) -> Words:
    """A plot of `plots`, by its name, with its texts in both languages."""
    kinds: dict[str, Callable[..., Markup]] = {
        "histogram": plots.histogram,
        "bars": plots.bars,
        "shares": plots.shares,
    }
    return in_both(lambda language: kinds[kind](*(in_language(value, language) for value in values), language=language))


def render_text(stats: Stats) -> str:
    """A summary for a terminal."""
    return render("curate/stats/summary.txt.j2", **_figures(stats), max_sources=MAX_SOURCES)


def _figures(stats: Stats) -> dict[str, Any]:
    """What the page and the summary both show."""
    lengths = [(label, getattr(stats, name)) for label, name in LENGTHS.items() if getattr(stats, name)]
    return {"stats": stats, "lengths": lengths, "quantiles": quantiles, "scores": _score_rows(stats)}


def write_page(stats: Stats, path: Path) -> None:
    """Writes the page atomically. Raises DataError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, render_page(stats))
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=str(path), fix="choose another --html") from None


def _rounded(counts: Counter[float]) -> Counter[str]:
    """Scores counted by the nearest whole number."""
    return Counter(f"{round(score)}" for score in counts.elements())


def _score_rows(stats: Stats) -> list[tuple[str, ...]]:
    """Criterion, mean, deviation, share of the best score, and number of scores."""
    best = max((score for counts in stats.scores.values() for score in counts), default=0)
    rows: list[tuple[str, ...]] = []
    for name, counts in stats.scores.items():
        scores = numpy.array(list(counts.elements()))
        share = f"{(scores == best).mean():.0%}"
        rows.append((name, f"{scores.mean():.2f}", f"{scores.std():.2f}", share, f"{len(scores):,}"))
    return rows
