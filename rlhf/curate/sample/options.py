"""What is drawn from which models and how: the flags of every command that draws answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config.flag_values import BAD_ROW, DTYPE, Dtype
from rlhf.config.flags import flag
from rlhf.config.sections import SamplingSection
from rlhf.data.sources import OnBadRow

SAMPLING_FLAGS = ("temperature", "top_p", "top_k", "max_new_tokens", "max_prompt_tokens", "batch_size")


@dataclass(frozen=True, slots=True)
class Drawing:
    """How answers are drawn: `sampling`'s settings, K answers per prompt, and the seed of every stream."""

    sampling: SamplingSection
    num_answers: int = flag(4, "answers per prompt from each model", name="--k", metavar="K", least=1)
    seed: int = flag(17, "seed of every draw from a model")


@dataclass(frozen=True, slots=True)
class Asking:
    """Which models answer which prompts, and how; every model is asked alike."""

    drawing: Drawing
    models: tuple[str, ...] = flag(
        ..., "run folder, model folder or hub id; may be repeated", name="--model", metavar="RUN"
    )
    prompts: str = flag(..., "prompts, or any rows that hold prompts; demo:rankings_dev", metavar="FILE")
    dtype: Dtype = flag("auto", DTYPE)
    limit: int | None = flag(None, "use only the first N usable prompts", least=1)
    on_bad_row: OnBadRow = flag("error", BAD_ROW)

    @property
    def decoding(self) -> dict[str, Any]:
        """The settings that decide an answer, as they are stored."""
        sampling = self.drawing.sampling
        return {**sampling.model_dump(exclude={"batch_size", "stop"}), "seed": self.drawing.seed, "dtype": self.dtype}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan(Asking):
    """What is asked, and the file that holds the answers."""

    out: Path = flag(..., "file to write (JSONL)", metavar="FILE")
