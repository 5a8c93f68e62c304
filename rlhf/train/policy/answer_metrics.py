"""Metrics of one iteration's answers: diversity, repetition, script, politeness, and how the score follows length.

Cheap enough for every iteration: about 20 ms for 128 answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.evaluate.answers.measures import measure
from rlhf.ops.line_fit import line_fit

NAMES = {
    "distinct_1": "distinct1",
    "distinct_2": "distinct2",
    "repeated_token_share": "repeated",
    "hangul_share": "hangul",
    "polite_share": "polite",
    "length_chars": "length_chars",
}  # as logged, and as rlhf.evaluate.answers.measures has them


def answer_metrics(texts: Sequence[str], num_tokens: Sequence[int], scores: Sequence[float]) -> dict[str, float]:
    """Metrics of one iteration's answers, by the name under which they are logged.

    distinct_1, distinct_2    unique words and word pairs as a share of all, over all answers
    repeated_token_share      share of words that equal one of the 8 before them, mean over answers
    hangul_share              share of the letters of all answers that are Hangul
    polite_share              share of all sentences that end politely; an empty answer counts as one that does not
    length_chars              mean length of an answer in characters
    reward_length_slope       reward units per response token, by least squares
    reward_length_correlation the same in standard units, -1 to 1; 0 where score or length does not vary

    Args:
        texts: answers without special tokens, at least one.
        num_tokens: response tokens of each answer, EOS included.
        scores: of each answer, in reward units.
    """
    means = measure([[text] for text in texts], [[True]] * len(texts), set(NAMES.values())).means()
    fit = line_fit(num_tokens, scores)
    return {
        **{logged: means[name] for logged, name in NAMES.items()},
        "reward_length_slope": fit.slope,
        "reward_length_correlation": fit.correlation,
    }
