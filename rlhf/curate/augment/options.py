"""The options of `rlhf data augment`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlhf.config.flags import flag
from rlhf.curate.augment.prompts import Structured
from rlhf.errors import ConfigError


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """The method, its files and its endpoint, and what decides the rows."""

    method: Literal["self-instruct", "evol"] = flag(
        ..., "self-instruct: new instructions in the style of the seeds; evol: the seeds made harder"
    )
    seeds: str = flag(..., "instructions, in any format of training data", metavar="FILE")
    endpoint: str = flag(..., "chat endpoint, e.g. http://127.0.0.1:8000/v1", metavar="URL")
    model: str = flag(..., "the model, by its name at the endpoint", metavar="NAME")
    num: int = flag(..., "rows to write")
    out: Path = flag(..., "file to write (JSONL)", metavar="FILE")
    seed: int = flag(17, "seed of every random choice")
    similarity: float = flag(0.7, "self-instruct: ROUGE-L from which an instruction repeats another", metavar="ROUGE")
    generations: int = flag(4, "evol: how often a seed is evolved")
    temperature: float = flag(0.8, "temperature of what is written; questions use temperature 0")
    top_p: float = flag(0.95, "top-p of what is written")
    max_tokens: int = flag(1024, "longest answer")
    structured: Structured = flag(
        "schema", "how the service is made to answer in JSON: by a schema, by JSON mode, or by the prompt alone"
    )

    def __post_init__(self) -> None:
        for name in ("num", "max_tokens", "generations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"is {getattr(self, name)}", where=name, expected="at least 1")
        if not 0 < self.similarity <= 1:
            raise ConfigError(f"is {self.similarity}", where="similarity", expected="above 0, at most 1")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError("temperature or top_p out of range", expected="at least 0; above 0, at most 1")

    def recorded(self) -> dict[str, Any]:
        """The options that decide the rows, for the manifest."""
        return {name: getattr(self, name) for name in self.__slots__ if name not in ("seeds", "out")}
