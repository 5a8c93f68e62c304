"""A reward function that gives many answers the same reward."""

from __future__ import annotations


def even_length(prompts: list[str], answers: list[str], finished: list[bool]) -> list[float]:
    """A unit for an answer of an even number of characters."""
    return [float(len(answer) % 2 == 0) for answer in answers]
