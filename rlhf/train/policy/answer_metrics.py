"""Metrics of one iteration's answers: diversity, repetition, script, politeness, and how the score follows length.

Cheap enough for every iteration: about 20 ms for 128 answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.evaluate.answers.measures import measure
from rlhf.ops.line_fit import line_fit

NAMES = {
    "text/distinct_1": "distinct1",
    "text/distinct_2": "distinct2",
    "text/repeated_token_share": "repeated",
    "text/hangul_share": "hangul",
    "text/polite_share": "polite",
    "text/length_chars": "length_chars",
}  # as logged, and as rlhf.evaluate.answers.measures has them


def answer_metrics(texts: Sequence[str], num_tokens: Sequence[int], scores: Sequence[float]) -> dict[str, float]:
    """Metrics of one iteration's answers, by the names of rlhf/config/metrics.yaml.

    Args:
        texts: answers without special tokens, at least one.
        num_tokens: response tokens of each answer, EOS included.
        scores: of each answer, in reward units.
    """
    means = measure([[text] for text in texts], [[True]] * len(texts), set(NAMES.values())).means()
    fit = line_fit(num_tokens, scores)
    return {
        **{logged: means[name] for logged, name in NAMES.items()},
        "objective/reward_length_slope": fit.slope,
        "objective/reward_length_correlation": fit.correlation,
    }
