"""How a benchmark is run: the flags of `rlhf evaluate benchmark`."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.config.flag_values import DTYPE, Dtype
from rlhf.config.flags import flag


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """Shots come from the train split of each task."""

    num_fewshot: int = flag(0, "examples before each question", least=0)
    limit: int | None = flag(None, "use only the first N questions per task", least=1)
    dtype: Dtype = flag("auto", DTYPE)
    batch_size: int = flag(8, "questions per forward pass", least=1)
