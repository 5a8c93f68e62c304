"""The options of `rlhf data augment`."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.config.flags import flag
from rlhf.curate.augment.prompts import Structured
from rlhf.errors import ConfigError


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """What decides the rows beside seeds and answers.

    Args:
        num: rows wanted.
        seed: of every random choice.
        temperature, top_p, max_tokens: of the requests that write; questions are asked at temperature 0.
        structured: hold the model to a JSON schema, to JSON, or only ask for it in the prompt.
        similarity: ROUGE-L from which a new instruction counts as a repetition.
        generations: how many times an instruction is evolved (evol).
    """

    num: int = flag(..., "rows to write")
    seed: int = flag(17, "seed of every random choice")
    temperature: float = flag(0.8, "sampling temperature of the requests that write", metavar="T")
    top_p: float = flag(0.95, "nucleus sampling of the requests that write", metavar="P")
    max_tokens: int = flag(1024, "longest answer in tokens")
    structured: Structured = flag("schema", "ask the service for JSON by a schema, by JSON mode, or in the prompt only")
    similarity: float = flag(
        0.7, "self-instruct: ROUGE-L from which an instruction counts as a repetition of another", metavar="ROUGE"
    )
    generations: int = flag(4, "evol: times a seed is evolved")

    def __post_init__(self) -> None:
        for name in ("num", "max_tokens", "generations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"is {getattr(self, name)}", where=name, expected="at least 1")
        if not 0 < self.similarity <= 1:
            raise ConfigError(f"is {self.similarity}", where="similarity", expected="above 0, at most 1")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError("temperature or top_p out of range", expected="at least 0; above 0, at most 1")
