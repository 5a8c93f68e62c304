"""A reward function that gives many answers the same reward."""

from __future__ import annotations

from zlib import crc32


def coin(prompts: list[str], answers: list[str], finished: list[bool]) -> list[float]:
    """0 or 1, by chance, but the same for the same answer."""
    return [float(crc32(answer.encode()) % 2) for answer in answers]
