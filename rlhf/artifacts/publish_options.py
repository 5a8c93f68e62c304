"""In which form a model is exported for others: the flags of `rlhf export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlhf.config.flags import flag

Part = Literal["merged", "adapter"]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The form of the weights; an adapter is copied as it was trained."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = flag(
        None, "data type of the weights (default: that of RUN/model)"
    )
    part: Part = flag("merged", "the whole model, or a LoRA run's adapter as it was trained")
    max_shard_size: str = flag("5GB", "largest size of one safetensors file", metavar="SIZE")
