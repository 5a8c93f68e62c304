"""Reward functions that come with the package, for `reward.functions`.

Each takes lists of prompts (the last user turn), of answers, and of whether an answer ended with EOS, and returns one
score per answer. Penalties are never above 0, so their weights are positive.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.curate.rude import rude_word_count
from rlhf.data.korean import polite_share, repeated_token_share


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
