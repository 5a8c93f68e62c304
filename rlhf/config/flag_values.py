"""Values that the flags of several commands take: their types, how their text is read, and their help."""

from __future__ import annotations

import argparse
import math
from typing import Literal

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPE = "data type of the weights; auto is bfloat16 on a GPU and float32 elsewhere"
SCORING_DTYPE = "data type of the reward model's weights; auto is that of its folder on a GPU and float32 elsewhere"
BAD_ROW = "at a bad row: stop, or skip and count it"


def parse_positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number above 0")
    return int(text)


def parse_similarity(text: str) -> float:
    """A number above 0, at most 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0, at most 1")
    return number


def parse_names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
