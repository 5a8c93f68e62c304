"""What is in data files, as one page and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rlhf.artifacts.files import write_text
from rlhf.curate.stats.counts import LENGTHS, REGISTERS, Stats, quantiles
from rlhf.curate.stats.plots import bars, histogram, shares
from rlhf.errors import DataError
from rlhf.html.page import document, section, table

NAMES = {
    "prompt_characters": "characters of a prompt",
    "answer_characters": "characters of an answer",
    "row_tokens": "tokens of a row",
}
MAX_SOURCES = 15
EXAMPLE_CHARACTERS = 110


def render_page(stats: Stats) -> str:
    """The whole page."""
    body = "".join(
        (
            _head(stats),
            section("Lengths", *_lengths(stats)),
            section("Sources", _sources(stats)),
            section("Turns of the user", _turns(stats)),
            section("Politeness", _politeness(stats)),
            section("Topics", _topics(stats)),
            section("Labels", _labels(stats)),
            section("Judge scores", _scores(stats)),
        )
    )
    return document("Data statistics", body)


def write_page(stats: Stats, path: Path) -> None:
    """Writes the page in one step. Raises DataError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, render_page(stats))
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=str(path), fix="choose another --html") from None


def render_text(stats: Stats) -> str:
    """A summary for a terminal."""
    lines = [*stats.files, f"  {_counts(stats)}"]
    for name in LENGTHS:
        if found := quantiles(getattr(stats, name)):
            text = ", ".join(f"{key} {value:,.0f}" for key, value in found.items())
            lines.append(f"  {NAMES[name]}: {text}")
    lines.append(f"  tokens: {sum(stats.row_tokens):,} ({stats.token_method})")
    lines.append(f"  sources: {_listed(stats.sources)}")
    lines.append(f"  turns of the user: {_listed(stats.turns)}")
    lines += [f"  politeness of {name}: {_listed(counts)}" for name, counts in stats.registers.items()]
    lines += [f"  answers a row: {_listed(stats.answers_per_row)}"] if stats.answers_per_row else []
    lines += [f"  labels: {_listed(stats.labels)}"] if stats.labels else []
    lines += [f"  {row[0]}: mean {row[1]}, deviation {row[2]}, best score in {row[3]}" for row in _score_rows(stats)]
    lines += [f"  topic of {topic.size:,}: {', '.join(topic.terms)}" for topic in stats.topics]
    return "\n".join(lines)


def _listed(counts: Counter) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(MAX_SOURCES))
    return shown + (f", {len(counts) - MAX_SOURCES} more" if len(counts) > MAX_SOURCES else "")


def _counts(stats: Stats) -> str:
    parts = [f"{stats.rows:,} rows ({', '.join(stats.formats)})"]
    parts += [f"{stats.bad_rows:,} cannot be used"] if stats.bad_rows else []
    parts += [f"{stats.duplicate_rows:,} repeat a row", f"{stats.duplicate_prompts:,} repeat a prompt"]
    return ", ".join(parts)


def _head(stats: Stats) -> str:
    files = "<br>".join(map(escape, stats.files))
    bad = f" {stats.bad_rows:,} rows cannot be used." if stats.bad_rows else ""
    return (
        f'<h1>Data statistics</h1><p class="path">{files}</p>'
        f'<p class="big">{stats.rows:,} <small>rows, {sum(stats.row_tokens):,} tokens</small></p>'
        f"<p>Format: {escape(', '.join(stats.formats))}. {stats.duplicate_rows:,} rows repeat an earlier one, "
        f"{stats.duplicate_prompts:,} repeat its prompt.{bad}</p>"
        f'<p class="note">Tokens: {escape(stats.token_method)}.</p>'
    )


def _lengths(stats: Stats) -> list[str]:
    found = [(NAMES[name], getattr(stats, name)) for name in LENGTHS if getattr(stats, name)]
    rows = [(label, *(f"{value:,.0f}" for value in quantiles(values).values())) for label, values in found]
    note = '<p class="note">Dashed: the median. The longest 1 % are left out of the plots.</p>'
    plots = "".join(histogram(values, label) for label, values in found)
    return [plots, note, table(("", "mean", "5 %", "median", "95 %", "longest"), rows)]


def _sources(stats: Stats) -> str:
    counts: list[tuple[str, float]] = [*stats.sources.most_common(MAX_SOURCES)]
    rest = stats.sources.total() - sum(count for _, count in counts)
    return bars([*counts, ("all others", rest)] if rest else counts, "rows")


def _turns(stats: Stats) -> str:
    if set(stats.turns) == {1}:
        return "<p>Every row is a single question.</p>"
    return bars([(str(number), count) for number, count in sorted(stats.turns.items())[:MAX_SOURCES]], "rows")


def _politeness(stats: Stats) -> str:
    note = "By the endings of sentences: polite from 90 % in 해요 or 합니다 style, plain up to 10 %."
    return f"<p>{note}</p>{shares(stats.registers, REGISTERS)}"


def _topics(stats: Stats) -> str:
    if not stats.topics:
        return ""
    plot = bars([(" · ".join(topic.terms[:2]) or "other", topic.size) for topic in stats.topics], "prompts")
    items = "".join(
        f'<div class="answer"><b>{escape(" · ".join(topic.terms) or "other")}</b> <small>{topic.size:,}</small>'
        + "".join(f"<p>{escape(_cut(example))}</p>" for example in topic.examples)
        + "</div>"
        for topic in stats.topics
    )
    note = "<p>Clusters of prompts by their character n-grams; the words that set each apart, and two prompts.</p>"
    return f"{note}{plot}{items}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXAMPLE_CHARACTERS else f"{text[: EXAMPLE_CHARACTERS - 1]}…"


def _labels(stats: Stats) -> str:
    if not stats.labels:
        return ""
    compared = stats.labels["compared"]
    names = ("best is longer", "best is more polite", "best is listed first", "answers are equal")
    rows = [(name, f"{stats.labels[name] / (compared or 1):.1%}") for name in names]
    rows.append(("tied throughout", f"{stats.labels['tied throughout']:,} rows"))
    sizes = [(f"{number} answers", count) for number, count in sorted(stats.answers_per_row.items())]
    note = (
        f"<p>Best against worst answer of {compared:,} rows. Far from 50 %, a model can win by length or tone "
        "alone.</p>"
    )
    return f"{note}{table(('', 'share'), rows)}{bars(sizes, 'rows') if len(sizes) > 1 else ''}"


def _scores(stats: Stats) -> str:
    if not stats.scores:
        return ""
    groups: dict[str, Counter[str]] = {}
    for name, counts in stats.scores.items():
        for value, number in counts.items():
            groups.setdefault(name, Counter())[f"{round(value)}"] += number
    parts = sorted({part for counts in groups.values() for part in counts}, key=int)
    plot = shares(groups, parts) if len(parts) <= 10 else ""
    return f"{plot}{table(('', 'mean', 'deviation', 'best score in', 'answers'), _score_rows(stats))}"


def _score_rows(stats: Stats) -> Sequence[tuple[str, ...]]:
    top = max((value for counts in stats.scores.values() for value in counts), default=0)
    rows = []
    for name, counts in stats.scores.items():
        number = counts.total()
        mean = sum(value * count for value, count in counts.items()) / number
        variance = sum((value - mean) ** 2 * count for value, count in counts.items()) / number
        rows.append((name, f"{mean:.2f}", f"{variance**0.5:.2f}", f"{counts[top] / number:.0%}", f"{number:,}"))
    return rows
