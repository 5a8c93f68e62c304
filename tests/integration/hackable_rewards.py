"""Reward functions that a policy can hack: it gets what they pay for, and nothing else."""

from __future__ import annotations

THANKS = "감사합니다"


def thanks(prompts: list[str], answers: list[str], finished: list[bool]) -> list[float]:
    """A unit for saying thanks."""
    return [float(THANKS in answer) for answer in answers]


def length(prompts: list[str], answers: list[str], finished: list[bool]) -> list[float]:
    """A unit for ten characters."""
    return [len(answer) / 10 for answer in answers]
