"""Rewards whose best score is known, as functions of text: this project calls them as they are, TRL through a module.

Each is called as f(prompts, answers, finished, **options) and scores an answer between 0 and 1, which is the optimum.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

OPTIMUM = 1.0
_POLITE = re.compile(r"(?:요|죠|니다|니까)[\s.!?~…]*$")
_FIRST_SYLLABLE, _LAST_SYLLABLE, _FINALS = "가", "힣", 28
_SHORTEST, _LONGEST, _SLACK = 20, 30, 20


def polite(prompts: Sequence[str], answers: Sequence[str], finished: Sequence[bool]) -> list[float]:
    """1 for an answer that ends, in its own time, with a polite ending."""
    return [float(done and bool(_POLITE.search(text))) for text, done in zip(answers, finished, strict=True)]


def tokens(prompts: Sequence[str], answers: Sequence[str], finished: Sequence[bool]) -> list[float]:
    """Share of syllables without a final consonant among all characters but spaces."""
    return [_open_share("".join(text.split())) for text in answers]


def _open_share(text: str) -> float:
    in_class = [
        _FIRST_SYLLABLE <= letter <= _LAST_SYLLABLE and (ord(letter) - ord(_FIRST_SYLLABLE)) % _FINALS == 0
        for letter in text
    ]
    return sum(in_class) / len(in_class) if in_class else 0.0


def length(prompts: Sequence[str], answers: Sequence[str], finished: Sequence[bool], *, tokenizer: str) -> list[float]:
    """1 for 20 to 30 tokens; 0.05 less for each token outside."""
    counts = [len(ids) for ids in _tokenizer(tokenizer)(list(answers))["input_ids"]]
    return [max(0.0, 1.0 - max(_SHORTEST - count, count - _LONGEST, 0) / _SLACK) for count in counts]


@cache
def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)
