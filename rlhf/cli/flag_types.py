"""What a flag's text is turned into, where several commands want the same; argparse shows the errors."""

from __future__ import annotations

import argparse
import math


def similarity(text: str) -> float:
    """A number above 0, at most 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0, at most 1")
    return number
