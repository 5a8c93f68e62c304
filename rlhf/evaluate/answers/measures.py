"""What answers look like, each measure with its interval, and the paired difference of two models.

Read off the text: rules of thumb that are good for comparing many answers of two models, not for judging one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf.curate.refusals import is_refusal
from rlhf.data.korean import contains_rude, hangul_share, is_polite, repeated_token_share, split_sentences
from rlhf.evaluate.intervals import Figure, Floats, jackknife_figure, ratio_difference, ratio_figure

_TOKEN = re.compile(r"\w+|[^\w\s]")
# How a sentence in plain speech ends: 했어, 하네, 간다, 그래, 할까, 하자, 이야 ...; nouns and headings do not count.
_PLAIN = re.compile(
    r"(?:다|어|아|해|야|여|지|네|까|자|라|래|걸|군|구나|니|냐|게|대|데|음|함|봐|줘|돼|워|려|거든|잖아)$"
    r"|(?:^|\s)(?:가|와|사|놔|둬|마)$"
)
_TAIL = re.compile(r"[\W_ㄱ-ㆎ]+$")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure's names on pages, what it is, and how its figure is written."""

    title: str
    korean: str
    meaning: str
    percent: bool = True

    def written(self, value: float) -> str:
        """The value as a person reads it: a percentage, or a number."""
        if np.isnan(value):
            return "–"
        return f"{100 * value:.1f} %" if self.percent else f"{value:.1f}"

    def signed(self, value: float) -> str:
        """A difference: percentage points, or a number."""
        return "–" if np.isnan(value) else f"{(100 if self.percent else 1) * value:+.1f}"


MEASURES: dict[str, Measure] = {
    "polite": Measure("polite sentences", "존댓말 문장", "sentences that end in 해요 or 합니다 style"),
    "mixed": Measure("mixed register", "말투 섞임", "answers with both polite (존댓말) and plain (반말) sentences"),
    "rude": Measure("rude", "무례한 말", "answers with a rude word"),
    "refused": Measure("refusals", "거절", "answers that decline"),
    "eos": Measure("ended", "스스로 끝맺음", "answers the model ended itself"),
    "empty": Measure("empty", "빈 답변", "answers without text"),
    "hangul": Measure("Hangul", "한글 비율", "letters that are Hangul"),
    "repeated": Measure("repetition", "되풀이", "words that equal one of the 8 before them, mean over answers"),
    "length": Measure("length", "길이", "characters of an answer", percent=False),
    "distinct1": Measure("distinct-1", "낱말 다양성", "unique words among all words"),
    "distinct2": Measure("distinct-2", "낱말 쌍 다양성", "unique word pairs among all pairs"),
    "distinct_answers": Measure("distinct answers", "답변 다양성", "unique whole answers among all"),
}
Totals = tuple[Floats, Floats]  # a measure's sums and counts by prompt, [P] each


def is_plain(sentence: str) -> bool:
    """Whether a sentence ends in plain speech (반말 or 한다 style): a verbal ending, and not a polite one."""
    return not is_polite(sentence) and _PLAIN.search(_TAIL.sub("", sentence)) is not None


def is_mixed(text: str) -> bool:
    """Whether an answer speaks politely in one sentence and plainly in another."""
    sentences = split_sentences(text)
    return any(map(is_polite, sentences)) and any(map(is_plain, sentences))


@dataclass(frozen=True, slots=True)
class Measured:
    """One model's answers, measured: `ratios` are sums and counts by prompt, `variety` counts what is unique."""

    ratios: dict[str, Totals]
    variety: dict[str, Variety]

    def figures(self) -> dict[str, Figure]:
        """Every measure with its interval."""
        found = {name: ratio_figure(*totals) for name, totals in self.ratios.items()}
        found |= {name: jackknife_figure(each.share, each.without) for name, each in self.variety.items()}
        return {name: found[name] for name in MEASURES}


@dataclass(frozen=True, slots=True)
class Variety:
    """Unique items as a share of all, and the same without each prompt [P]; 0 where there are none."""

    share: float
    without: Floats


def measure(answers: Sequence[Sequence[str]], finished: Sequence[Sequence[bool]]) -> Measured:
    """Measures the answers to P prompts, one or more each. `finished` says which ended in EOS.

    An empty answer counts as one sentence that is not polite, so that silence does not raise the polite share.
    """
    texts = [[text.strip() for text in group] for group in answers]
    each: dict[str, Callable[[str], tuple[float, float]]] = {
        "polite": _polite,
        "mixed": lambda text: (is_mixed(text), 1),
        "rude": lambda text: (contains_rude(text), 1),
        "refused": lambda text: (is_refusal(text), 1),
        "empty": lambda text: (not text, 1),
        "hangul": _hangul,
        "repeated": lambda text: (repeated_token_share(text), 1),
        "length": lambda text: (len(text), 1),
    }
    ratios = {name: _totals([[read(text) for text in group] for group in texts]) for name, read in each.items()}
    ratios["eos"] = _totals([[(float(flag), 1.0) for flag in group] for group in finished])
    variety = {
        "distinct1": unique_share([_grams(group, 1) for group in texts]),
        "distinct2": unique_share([_grams(group, 2) for group in texts]),
        "distinct_answers": unique_share(texts),
    }
    return Measured(ratios, variety)


def differences(first: Measured, second: Measured) -> dict[str, Figure]:
    """Second minus first, prompt by prompt."""
    found = {
        name: ratio_difference(
            (first.ratios[name][0], second.ratios[name][0]), (first.ratios[name][1], second.ratios[name][1])
        )
        for name in first.ratios
    }
    for name, before in first.variety.items():
        after = second.variety[name]
        found[name] = jackknife_figure(after.share - before.share, after.without - before.without)
    return {name: found[name] for name in MEASURES}


def unique_share(groups: Sequence[Iterable[Any]]) -> Variety:
    """Unique items of all groups divided by items; without a group, the items that only it holds are gone."""
    counts = [Counter(group) for group in groups]
    total: Counter[Any] = Counter()
    for count in counts:
        total.update(count)
    size, unique = total.total(), len(total)
    alone = [sum(total[item] == number for item, number in count.items()) for count in counts]
    without = [
        (unique - gone) / (size - count.total()) if size > count.total() else 0.0
        for count, gone in zip(counts, alone, strict=True)
    ]
    return Variety(unique / size if size else 0.0, np.asarray(without))


def _polite(text: str) -> tuple[float, float]:
    sentences = split_sentences(text) or [""]
    return float(sum(map(is_polite, sentences))), float(len(sentences))


def _hangul(text: str) -> tuple[float, float]:
    letters = sum(map(str.isalpha, text))
    return hangul_share(text) * letters, float(letters)


def _totals(values: Sequence[Sequence[tuple[float, float]]]) -> Totals:
    sums = [float(sum(value for value, _ in group)) for group in values]
    counts = [float(sum(count for _, count in group)) for group in values]
    return np.asarray(sums), np.asarray(counts)


def _grams(texts: Sequence[str], n: int) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for text in texts:
        tokens = _TOKEN.findall(text)
        found += [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return found
