"""Hate against groups of people in Korean: slurs, and claims that a whole group is bad or should be gone.

Rules of thumb; `rlhf evaluate measures` prints how often they are right, by group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlhf.curate.patterns import read_patterns
from rlhf.data.korean import split_sentences

_PATTERNS = read_patterns("rlhf.curate", "hate.yaml")


def slurs_in(text: str) -> Iterator[re.Match[str]]:
    """The slurs of a text, without those that it speaks about: ‘짱깨’라는 말은 쓰지 마세요."""
    for found in _PATTERNS["slurs"].finditer(text):
        if _PATTERNS["mention"].match(text, found.end()) is None:
            yield found


def is_hateful(text: str) -> bool:
    """Whether a text holds a slur, or a claim about a whole group that its sentence does not take back."""
    return any(map(_is_hateful_sentence, split_sentences(text)))


def _is_hateful_sentence(sentence: str) -> bool:
    if next(slurs_in(sentence), None) is not None:
        return True
    return _PATTERNS["claim"].search(sentence) is not None and _PATTERNS["rebuttal"].search(sentence) is None
