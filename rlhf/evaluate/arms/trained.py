"""What training left of an arm, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Trained:
    """What is known of an arm beside its answers.

    status: of its run, `finished` or why it is not. budget: what its configuration lets it do, as arms.json holds it.
    seconds: what it took by part, by the clock; cpu_seconds: of all processors together. tokens: by kind. All are empty
    for the SFT model.
    """

    status: str = FINISHED
    budget: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As arms.json holds it."""
        return {
            "status": self.status,
            "seconds": round(sum(self.seconds.values()), 1),
            "seconds_by_part": dict(self.seconds),
            "cpu_seconds": round(sum(self.cpu_seconds.values()), 1),
            "cpu_seconds_by_part": dict(self.cpu_seconds),
            "tokens": dict(self.tokens),
            "budget": dict(self.budget),
        }
