"""What is measured on answers, each measure with its interval, and the paired difference of two models.

Every measure is a rule on the text: good for comparing many answers of two models, not for judging one. Training logs
some of them each iteration, evaluation reports all with intervals, the quickstart prints their values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rlhf.curate.hate import is_hateful
from rlhf.curate.refusals import is_refusal
from rlhf.curate.rude import contains_rude
from rlhf.data.korean import hangul_letters, polite_sentences, register, repeated_token_share
from rlhf.errors import DataError
from rlhf.evaluate.intervals import (
    SHARE,
    SHARE_DIFFERENCE,
    Bounds,
    Figure,
    Floats,
    jackknife_figure,
    ratio_difference,
    ratio_figure,
)

Value = TypeVar("Value")
_TOKEN = re.compile(r"\w+|[^\w\s]")


def is_mixed(text: str) -> bool:
    """Whether an answer speaks politely in one sentence and plainly in another."""
    return register(text) == "mixed"


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Every run of n tokens; tokens are words and single punctuation marks."""
    tokens = _TOKEN.findall(text)
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def _polite(text: str, ended: bool) -> tuple[float, float]:
    polite, number = polite_sentences(text)
    return polite, number or 1  # an empty answer is one sentence that is not polite: silence must not raise the share


def _each(value: Callable[[str], float]) -> Callable[[str, bool], tuple[float, float]]:
    """A measure whose figure is the mean over answers."""
    return lambda text, ended: (value(text), 1)


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure's names on pages, what it is, and how it is read off an answer.

    total: (numerator, denominator) of one answer, from its text and whether it ended in EOS; the figure is the sum of
        numerators over the sum of denominators.
    items: what one answer holds; the figure is the number of unique items over the number of items.
    percent: whether the figure is a share, written as a percentage.
    """

    title: str
    korean: str
    meaning: str
    total: Callable[[str, bool], tuple[float, float]] | None = None
    items: Callable[[str], Sequence[Hashable]] | None = None
    percent: bool = True

    def written(self, value: float) -> str:
        """The value as a person reads it: a percentage, or a number."""
        return "–" if np.isnan(value) else format(value, ".1%" if self.percent else ".1f")

    def signed(self, value: float) -> str:
        """A difference: percentage points, or a number."""
        return "–" if np.isnan(value) else f"{(100 if self.percent else 1) * value:+.1f}"


MEASURES: dict[str, Measure] = {
    "polite": Measure("polite sentences", "존댓말 문장", "sentences that end in 해요 or 합니다 style", _polite),
    "mixed": Measure(
        "mixed register", "말투 섞임", "answers with both polite (존댓말) and plain (반말) sentences", _each(is_mixed)
    ),
    "rude": Measure("rude", "무례한 말", "answers with a rude word", _each(contains_rude)),
    "hateful": Measure("hateful", "혐오 표현", "answers with a slur or a claim against a group", _each(is_hateful)),
    "refused": Measure("refusals", "거절", "answers that decline", _each(is_refusal)),
    "eos": Measure("ended", "스스로 끝맺음", "answers that end in EOS", lambda text, ended: (ended, 1)),
    "empty": Measure("empty", "빈 답변", "answers without text", _each(lambda text: not text)),
    "hangul": Measure(
        "Hangul", "한글 비율", "letters that are Hangul", lambda text, ended: hangul_letters(text)
    ),
    "repeated": Measure(
        "repetition", "되풀이", "words that equal one of the 8 before them, mean over answers",
        _each(repeated_token_share),
    ),
    "length_chars": Measure("length", "길이", "characters per answer", _each(len), percent=False),
    "distinct1": Measure(
        "distinct-1", "낱말 다양성", "unique words among all words", items=lambda text: ngrams(text, 1)
    ),
    "distinct2": Measure(
        "distinct-2", "낱말 쌍 다양성", "unique word pairs among all pairs", items=lambda text: ngrams(text, 2)
    ),
    "distinct_answers": Measure(
        "distinct answers", "답변 다양성", "unique whole answers among all", items=lambda text: [text]
    ),
}  # fmt: skip
Totals = tuple[Floats, Floats]  # a measure's numerators and denominators by prompt, [P] each


@dataclass(frozen=True, slots=True)
class Variety:
    """Unique items as a share of all, and the same without each prompt [P]; 0 where there are none."""

    share: float
    without: Floats


@dataclass(frozen=True, slots=True)
class Measured:
    """One model's answers, measured; both by the name of the measure."""

    ratios: dict[str, Totals]
    variety: dict[str, Variety]

    def means(self) -> dict[str, float]:
        """Every measure's value; 0 where its denominator is, as of the Hangul share of answers without letters."""
        found = {name: float(sums.sum() / (counts.sum() or 1)) for name, (sums, counts) in self.ratios.items()}
        return _ordered(found | {name: each.share for name, each in self.variety.items()})

    def figures(self) -> dict[str, Figure]:
        """Every measure with its interval."""
        found = {name: ratio_figure(*totals, _bounds(name, SHARE)) for name, totals in self.ratios.items()}
        found |= {name: jackknife_figure(each.share, each.without, SHARE) for name, each in self.variety.items()}
        return _ordered(found)


def measure(
    answers: Sequence[Sequence[str]], finished: Sequence[Sequence[bool]], names: Collection[str] = tuple(MEASURES)
) -> Measured:
    """Measures the answers to P prompts, one or more each. `finished` says which ended in EOS.

    Outer whitespace does not count. Raises: DataError without any answer.
    """
    if not answers:
        raise DataError("no answers to measure", expected="at least one generated answer")
    texts = [[text.strip() for text in group] for group in answers]
    ratios, variety = {}, {}
    for name in names:
        known = MEASURES[name]
        if known.total is not None:
            totals = [
                [known.total(text, bool(ended)) for text, ended in zip(group, flags, strict=True)]
                for group, flags in zip(texts, finished, strict=True)
            ]
            sums, counts = ([float(sum(pair[part] for pair in group)) for group in totals] for part in (0, 1))
            ratios[name] = np.asarray(sums), np.asarray(counts)
        if known.items is not None:
            variety[name] = unique_share([[item for text in group for item in known.items(text)] for group in texts])
    return Measured(ratios, variety)


def differences(first: Measured, second: Measured) -> dict[str, Figure]:
    """Second minus first, prompt by prompt."""
    found = {
        name: ratio_difference(
            (first.ratios[name][0], second.ratios[name][0]),
            (first.ratios[name][1], second.ratios[name][1]),
            _bounds(name, SHARE_DIFFERENCE),
        )
        for name in first.ratios
    }
    for name, before in first.variety.items():
        after = second.variety[name]
        found[name] = jackknife_figure(after.share - before.share, after.without - before.without, SHARE_DIFFERENCE)
    return _ordered(found)


def unique_share(groups: Sequence[Iterable[Hashable]]) -> Variety:
    """Unique items of all groups divided by items; without a group, the items that only it holds are gone."""
    counts = [Counter(group) for group in groups]
    total: Counter[Hashable] = Counter()
    for count in counts:
        total.update(count)
    size, unique = total.total(), len(total)
    alone = [sum(total[item] == number for item, number in count.items()) for count in counts]
    without = [
        (unique - gone) / (size - count.total()) if size > count.total() else 0.0
        for count, gone in zip(counts, alone, strict=True)
    ]
    return Variety(unique / size if size else 0.0, np.asarray(without))


def _bounds(name: str, bounds: Bounds) -> Bounds | None:
    return bounds if MEASURES[name].percent else None


def _ordered(found: dict[str, Value]) -> dict[str, Value]:
    """In the order of MEASURES."""
    return {name: found[name] for name in MEASURES if name in found}
