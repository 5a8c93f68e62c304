"""Statistics of data files: lengths, sources, turns, politeness, duplicates, topics, labels, scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy

from rlhf.curate.check.cost import CHARACTERS_PER_TOKEN, token_counter
from rlhf.curate.check.rows import asked_key
from rlhf.curate.check.seen import SeenKeys
from rlhf.curate.output import progress
from rlhf.curate.row_texts import compact
from rlhf.curate.stats.topics import Topic, topics_of
from rlhf.data.korean import polite_share
from rlhf.data.records import Ranking, Record
from rlhf.data.sources import parsed_rows
from rlhf.errors import DataError

POLITE, PLAIN = 0.9, 0.1  # a text is polite from the one share of polite sentences, and plain up to the other
MAX_TOPIC_ROWS = 20_000  # the first prompts, from which the topics are made
BATCH = 256
REGISTERS = ("polite", "mixed", "plain")


@dataclass(slots=True)
class Stats:
    """Statistics of one or several files together. Lengths are per text; `labels` counts untied rankings."""

    files: list[str]
    rows: int = 0
    bad_rows: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    prompt_characters: list[int] = field(default_factory=list)
    answer_characters: list[int] = field(default_factory=list)
    row_tokens: list[int] = field(default_factory=list)
    token_method: str = ""
    registers: dict[str, Counter[str]] = field(default_factory=dict)
    answers_per_row: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    scores: dict[str, Counter[float]] = field(default_factory=dict)
    duplicate_rows: int = 0
    duplicate_prompts: int = 0
    topics: list[Topic] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, lengths as quantiles."""
        lengths = {name: quantiles(getattr(self, name)) for name in LENGTHS}
        topics = [topic._asdict() for topic in self.topics]
        return {name: getattr(self, name) for name in self.__slots__} | lengths | {"topics": topics}


LENGTHS = ("prompt_characters", "answer_characters", "row_tokens")


def quantiles(values: Sequence[int]) -> dict[str, float]:
    """Mean, median, 5th and 95th percentile, maximum; empty without values."""
    if not values:
        return {}
    low, median, high = numpy.percentile(values, (5, 50, 95))
    mean, longest = float(numpy.mean(values)), float(max(values))
    return {"mean": mean, "p5": float(low), "median": float(median), "p95": float(high), "longest": longest}


def file_stats(files: Sequence[str], tokenizer: str = "", template: str | None = None, seed: int = 0) -> Stats:
    """Reads the files and counts.

    Args:
        tokenizer: model folder to count tokens with; "" estimates them from characters.
        template: preset or file for a tokenizer without one.
        seed: of the topic clusters.

    Raises:
        DataError: for a path or file that cannot be read, or without one usable row.
    """
    counter = token_counter(tokenizer, template, CHARACTERS_PER_TOKEN)
    stats = Stats(list(files), token_method=counter.method)
    rows, prompts, asked, waiting = SeenKeys(), SeenKeys(), list[str](), list[Record]()
    for row, record in progress(_records(files, stats), "counting"):
        key = _count(stats, row, record)
        rows.add((key, record.answers), stats.rows)
        prompts.add(key, stats.rows)
        if len(asked) < MAX_TOPIC_ROWS:
            asked.append(next(turn.content for turn in reversed(record.prompt) if turn.role == "user"))
        waiting.append(record)
        if len(waiting) == BATCH:
            stats.row_tokens += [each.total for each in counter.rows(waiting)]
            waiting.clear()
    if not prompts:
        raise DataError(f"none of {stats.rows} rows can be used", where=files[0], fix=f"rlhf data check {files[0]}")
    stats.row_tokens += [each.total for each in counter.rows(waiting)]
    stats.duplicate_rows, stats.duplicate_prompts = rows.repeated(0).total, prompts.repeated(0).total
    stats.topics = topics_of(asked, seed)
    return stats


def _records(files: Sequence[str], stats: Stats) -> Iterator[tuple[Mapping[str, Any], Record]]:
    for parsed in (each for file in files for each in parsed_rows(file)):
        stats.rows += 1
        if isinstance(parsed.record, DataError):
            stats.bad_rows += 1
            continue
        stats.formats[parsed.format] += 1
        yield parsed.row, parsed.record


def _count(stats: Stats, row: Mapping[str, Any], record: Record) -> str:
    """Adds a row to the counts; returns the key of its prompt."""
    turns, answers = record.prompt, record.answers
    stats.sources[record.source or "(none)"] += 1
    stats.turns[sum(message.role == "user" for message in turns)] += 1
    stats.prompt_characters.append(sum(len(message.content) + len(message.input) for message in turns))
    stats.answer_characters += map(len, answers)
    _register(stats, "prompts", turns[-1].content)
    for answer in () if isinstance(record, Ranking) else answers:
        _register(stats, "answers", answer)
    if isinstance(record, Ranking):
        _labels(stats, record)
    _scores(stats, row)
    return asked_key(turns)


def register_of(text: str) -> str:
    """polite, plain, or mixed, by the share of polite sentences."""
    share = polite_share(text)
    return "polite" if share >= POLITE else "plain" if share <= PLAIN else "mixed"


def _register(stats: Stats, group: str, text: str) -> None:
    stats.registers.setdefault(group, Counter())[register_of(text)] += 1


def _labels(stats: Stats, record: Ranking) -> None:
    """Best against worst answer of a ranking: which one is longer, listed first, more polite."""
    stats.answers_per_row[record.num_answers] += 1
    best, worst = record.best, record.ranks.index(max(record.ranks))
    if record.all_tied:
        stats.labels["tied throughout"] += 1
        return
    better, worse = record.responses[best], record.responses[worst]
    _register(stats, "best answers", better)
    _register(stats, "worst answers", worse)
    stats.labels["compared"] += 1
    stats.labels["best is longer"] += len(better) > len(worse)
    stats.labels["best is more polite"] += polite_share(better) > polite_share(worse)
    stats.labels["best is listed first"] += best < worst
    stats.labels["answers are equal"] += compact(better) == compact(worse)


def _scores(stats: Stats, row: Mapping[str, Any]) -> None:
    """A judge's scores of one answer, by criterion."""
    scores, criteria = row.get("scores"), row.get("criteria")
    if not isinstance(scores, list) or not isinstance(criteria, list) or len(scores) != len(criteria):
        return
    for criterion, score in zip(criteria, scores, strict=True):
        if isinstance(score, int | float) and not isinstance(score, bool) and abs(score) < 1e9:
            stats.scores.setdefault(str(criterion), Counter())[round(float(score), 2)] += 1
