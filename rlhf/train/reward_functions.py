"""Reward functions that come with the package, for `reward.functions`.

Each takes lists of prompts (the last user turn), of answers, and of whether an answer ended with EOS, and returns one
score per answer, or its rewards at offsets of the answer. Penalties are never above 0, so their weights are positive.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rlhf.curate.rude import rude_word_count
from rlhf.data.korean import is_polite, polite_share, repeated_token_share, split_sentences


def length_penalty(
    prompts: Sequence[str],
    answers: Sequence[str],
    finished: Sequence[bool],
    *,
    free_characters: int = 300,
    characters_per_unit: float = 100.0,
) -> list[float]:
    """0 up to `free_characters`, then -1 per `characters_per_unit` more."""
    return [-max(0, len(answer.strip()) - free_characters) / characters_per_unit for answer in answers]


def repetition_penalty(prompts: Sequence[str], answers: Sequence[str], finished: Sequence[bool]) -> list[float]:
    """Minus the share of words that equal one of the 8 before them, 0 to -1."""
    return [-repeated_token_share(answer) for answer in answers]


def polite(
    prompts: Sequence[str], answers: Sequence[str], finished: Sequence[bool], *, rude_cost: float = 1.0
) -> list[float]:
    """Share of sentences in a polite form, 0 to 1, less `rude_cost` for each rude word."""
    return [polite_share(answer) - rude_cost * rude_word_count(answer) for answer in answers]


def polite_by_sentence(
    prompts: Sequence[str], answers: Sequence[str], finished: Sequence[bool]
) -> list[float | list[tuple[int, float]]]:
    """A share of 1 at the end of each polite sentence, so that an answer of polite sentences earns 1.

    An answer that is not NFC, whose sentences have no place in it, earns its share of polite sentences at its end.
    """
    return [
        _by_sentence(answer) if unicodedata.is_normalized("NFC", answer) else polite_share(answer) for answer in answers
    ]


def _by_sentence(answer: str) -> list[tuple[int, float]]:
    """(offset of a sentence's end, its reward); sentences hold the characters of the answer, spaces aside, in order."""
    places = [offset for offset, character in enumerate(answer, start=1) if not character.isspace()]
    sentences, read, earned = split_sentences(answer), 0, []
    for sentence in sentences:
        read += len("".join(sentence.split()))
        earned.append((places[read - 1], is_polite(sentence) / len(sentences)))
    return earned
