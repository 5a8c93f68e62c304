"""Values of flags that several data commands share."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError


def parse_similarity(text: str) -> float:
    """A number above 0, at most 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:
        raise ArgumentTypeError(f"{text!r}; expected a number above 0, at most 1")
    return number
