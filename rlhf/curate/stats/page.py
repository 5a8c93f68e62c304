"""The statistics of data files as a page and as text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy

from rlhf.artifacts.files import write_text
from rlhf.curate.stats import plots
from rlhf.curate.stats.counts import LENGTHS, REGISTERS, Stats, quantiles
from rlhf.errors import DataError
from rlhf.html.templates import render

NAMES = {
    "prompt_characters": "characters per prompt",
    "answer_characters": "characters per answer",
    "row_tokens": "tokens per row",
}
LABELS = ("best is longer", "best is more polite", "best is listed first", "answers are equal")
MAX_SOURCES = 15
EXAMPLE_CHARACTERS = 110


def render_page(stats: Stats) -> str:
    """The whole page."""
    sources = stats.sources.most_common(MAX_SOURCES)
    if rest := stats.sources.total() - sum(count for _, count in sources):
        sources.append(("all others", rest))
    labels = [(name, f"{stats.labels[name] / (stats.labels['compared'] or 1):.1%}") for name in LABELS]
    grades = {name: _rounded(counts) for name, counts in stats.scores.items()}
    return render(
        "curate/stats/page.html.j2",
        stats=stats,
        plots=plots,
        quantiles=quantiles,
        shortened=_shortened,
        registers=REGISTERS,
        lengths=[(NAMES[name], getattr(stats, name)) for name in LENGTHS if getattr(stats, name)],
        sources=sources,
        turns=[(str(number), count) for number, count in sorted(stats.turns.items())[:MAX_SOURCES]],
        topics=[(" · ".join(topic.terms[:2]) or "other", topic.size) for topic in stats.topics],
        labels=[*labels, ("tied throughout", f"{stats.labels['tied throughout']:,} rows")],
        sizes=[(f"{number} answers", count) for number, count in sorted(stats.answers_per_row.items())],
        grade_counts=grades,
        grades=sorted({grade for counts in grades.values() for grade in counts}, key=int),
        scores=_score_rows(stats),
    )


def write_page(stats: Stats, path: Path) -> None:
    """Writes the page atomically. Raises DataError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, render_page(stats))
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=str(path), fix="choose another --html") from None


def render_text(stats: Stats) -> str:
    """A summary for a terminal."""
    bad = f", {stats.bad_rows:,} cannot be used" if stats.bad_rows else ""
    repeats = f"{stats.duplicate_rows:,} repeat a row, {stats.duplicate_prompts:,} repeat a prompt"
    lines = [*stats.files, f"  {stats.rows:,} rows ({', '.join(stats.formats)}){bad}, {repeats}"]
    for name in LENGTHS:
        if found := quantiles(getattr(stats, name)):
            text = ", ".join(f"{key} {value:,.0f}" for key, value in found.items())
            lines.append(f"  {NAMES[name]}: {text}")
    lines.append(f"  tokens: {sum(stats.row_tokens):,} ({stats.token_method})")
    counters: dict[str, Counter] = {"sources": stats.sources, "user turns": stats.turns}
    counters |= {f"politeness of {name}": counts for name, counts in stats.registers.items()}
    counters |= {"answers per row": stats.answers_per_row, "labels": stats.labels}
    lines += [f"  {name}: {_listed(counts)}" for name, counts in counters.items() if counts]
    lines += [f"  {row[0]}: mean {row[1]}, deviation {row[2]}, best score in {row[3]}" for row in _score_rows(stats)]
    lines += [f"  topic of {topic.size:,}: {', '.join(topic.terms)}" for topic in stats.topics]
    return "\n".join(lines)


def _listed(counts: Counter) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(MAX_SOURCES))
    return shown + (f", {len(counts) - MAX_SOURCES} more" if len(counts) > MAX_SOURCES else "")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXAMPLE_CHARACTERS else f"{text[: EXAMPLE_CHARACTERS - 1]}…"


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
