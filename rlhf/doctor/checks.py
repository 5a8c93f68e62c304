"""The outcome of one check of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["passed", "failed", "skipped", "info"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        name: what was looked at, in two or three words.
        state: `info` states a fact; `skipped` could not run here.
        detail: what was found, with figures and, for a comparison, its tolerance.
        fix: the configuration key to turn or the command to run; only for a failed check.
    """

    name: str
    state: State
    detail: str
    fix: str = ""
