"""Baselines that read no meaning, on the same pairs: pick the longer answer, and character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from rlhf.data.records import Ranking
from rlhf.evaluate.intervals import SHARE_DIFFERENCE, ratio_figure
from rlhf.evaluate.reward.accuracy import ScoredRanking, accuracy, prompt_groups, rescored, untied_pairs
from rlhf.html.intervals import figure_text
from rlhf.html.words import Words

MAX_TRAINING_RANKINGS = 20_000
MAX_TRAINING_PAIRS = 20_000
MAX_FEATURES = 200_000
SEED = 20231


def ngram_scores(training: Sequence[Ranking], rankings: Sequence[Ranking]) -> list[list[float]]:
    """A score per answer from a linear model on TF-IDF of its character 2-3-grams; prompts are not used.

    Logistic regression without intercept on the difference of a pair's answers, both orders: a score difference
    is the log-odds that the first is better.

    Raises: ValueError without a pair to learn from.
    """
    rows = sampled(training, MAX_TRAINING_RANKINGS)
    answers = [answer for row in rows for answer in row.responses]
    starts = np.cumsum([0, *(len(row.responses) for row in rows)])
    pairs = [
        (start + pair.better, start + pair.worse)
        for start, row in zip(starts[:-1].tolist(), rows, strict=True)
        for pair in untied_pairs(row.ranks)
        if row.responses[pair.better] != row.responses[pair.worse]
    ]
    if not pairs:
        raise ValueError("no pair to learn from")
    pairs = sampled(pairs, MAX_TRAINING_PAIRS)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(2, 3), sublinear_tf=True, max_features=MAX_FEATURES)
    features = vectorizer.fit_transform(answers)
    difference = features[[better for better, _ in pairs]] - features[[worse for _, worse in pairs]]
    labels = np.repeat([1, 0], len(pairs))
    model = LogisticRegression(fit_intercept=False, max_iter=1000).fit(vstack([difference, -difference]), labels)
    scores = iter(vectorizer.transform([answer for each in rankings for answer in each.responses]) @ model.coef_[0])
    return [[float(next(scores)) for _ in each.responses] for each in rankings]


def sampled(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items in their order, drawn from a fixed random stream; all where there are no more."""
    if len(items) <= count:
        return list(items)
    kept = np.sort(np.random.default_rng(SEED).permutation(len(items))[:count])
    return [items[number] for number in kept]


def shortcut_section(
    rows: Sequence[ScoredRanking],
    lengths: Sequence[Sequence[int]],
    rankings: Sequence[Ranking],
    training: Sequence[Ranking],
) -> dict[str, Any]:
    """Both baselines with their accuracy, the model minus the better of them, and a verdict in words."""
    baselines = {"longer_answer": rescored(rows, lengths)}
    notes = {}
    if any(not ranking.all_tied for ranking in training):
        baselines["character_ngrams"] = rescored(rows, ngram_scores(training, rankings))
    else:
        notes["character_ngrams"] = "character n-grams could not be trained: the training data could not be read"
    best = max(baselines, key=lambda name: accuracy(baselines[name])["accuracy"])
    difference = paired_difference(rows, baselines[best])
    beats, verdict = verdict_of(difference, best, has_ngrams="character_ngrams" in baselines)
    return {
        "baselines": {name: accuracy(each) for name, each in baselines.items()},
        "notes": notes,
        "best_baseline": best,
        "model_minus_best": difference,
        "beats_shortcuts": beats,
        "verdict": verdict,
    }


def paired_difference(rows: Sequence[ScoredRanking], others: Sequence[ScoredRanking]) -> dict[str, float]:
    """Accuracy of `rows` minus that of `others` on the same pairs, with a 95 % bootstrap interval over prompts."""
    outcomes = [(row.pairs(), other.pairs()) for row, other in zip(rows, others, strict=True)]
    groups = prompt_groups(rows)
    counts = [float(sum(len(outcomes[row][0]) for row in group)) for group in groups]
    gains = [sum(sum(outcomes[row][0]) - sum(outcomes[row][1]) for row in group) for group in groups]
    figure = ratio_figure(np.asarray(gains), np.asarray(counts), SHARE_DIFFERENCE)
    return {"difference": figure["mean"], "low": figure["low"], "high": figure["high"]}


NAMES = {"longer_answer": "the longer answer", "character_ngrams": "character n-grams"}
KOREAN_NAMES = {"longer_answer": "더 긴 답변", "character_ngrams": "글자 n-그램"}


def shortcut_words(section: dict[str, Any]) -> Words:
    """The verdict of a section in both languages."""
    difference, best = section["model_minus_best"], section["best_baseline"]
    has_ngrams = "character_ngrams" in section["baselines"]
    figures = f"{KOREAN_NAMES[best]} 대비 {figure_text(difference, '+.3f', 'difference')}"
    if difference["high"] < 0:
        korean = f"모델이 지름길보다 못합니다({figures})."
    elif difference["difference"] <= 0:
        korean = f"모델이 지름길을 이기지 못합니다({figures})."
    elif difference["low"] <= 0:
        korean = f"쌍이 모자라 모델이 지름길을 이기는지 알 수 없습니다({figures})."
    elif not has_ngrams:
        korean = f"모델이 답변 길이보다는 낫습니다({figures}). 글자 n-그램은 학습하지 못해 비교하지 못했습니다."
    else:
        korean = f"모델이 지름길보다 낫습니다({figures})."
    return Words(korean, section["verdict"])


def verdict_of(difference: dict[str, float], best: str, *, has_ngrams: bool) -> tuple[bool, str]:
    """Whether the whole interval lies above the best baseline, and a sentence that says so."""
    figures = f"{figure_text(difference, '+.3f', 'difference')} against {NAMES[best]}"
    if difference["high"] < 0:
        return False, f"The model is worse than a shortcut: {figures}."
    if difference["difference"] <= 0:
        return False, f"The model does not beat its shortcuts: {figures}."
    if difference["low"] <= 0:
        return False, f"Too few pairs to tell whether the model beats its shortcuts: {figures}."
    if not has_ngrams:
        return False, f"The model beats answer length ({figures}); character n-grams could not be trained to compare."
    return True, f"The model beats its shortcuts: {figures}."
