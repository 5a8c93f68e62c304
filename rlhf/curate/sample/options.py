"""The options of `rlhf data sample`, which every command that draws answers fills."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlhf.config.flag_values import Dtype
from rlhf.config.flags import flag
from rlhf.config.rollout import RolloutSection
from rlhf.config.sections import SamplingSection
from rlhf.data.sources import OnBadRow
from rlhf.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """The prompts, who answers them (folders or runs, and an endpoint), and how."""

    prompts: str = flag(..., "prompts, or any rows that hold prompts", metavar="FILE")
    out: Path = flag(..., "file to write (JSONL)", metavar="FILE")
    models: tuple[str, ...] = flag(
        (), "run folder, model folder or hub id; may be repeated", name="--model", metavar="RUN"
    )
    endpoint: str = flag("", "chat endpoint that answers too, e.g. http://127.0.0.1:8000/v1", metavar="URL")
    endpoint_model: str = flag("", "the model at the endpoint", metavar="NAME")
    k: int = flag(4, "answers per model", metavar="K", least=1)
    dtype: Dtype = flag("auto", "type of the weights; auto is bfloat16 on a GPU and float32 elsewhere")
    seed: int = flag(17, "seed of every draw of a model")
    limit: int | None = flag(None, "only the first N usable prompts", least=1)
    on_bad_row: OnBadRow = flag("error", "what to do at a bad row")
    sampling: SamplingSection = field(default_factory=SamplingSection)
    rollout: RolloutSection = field(default_factory=RolloutSection)

    def __post_init__(self) -> None:
        if not self.models and not self.endpoint:
            raise ConfigError("no model to ask", where="--model", fix="name a model with --model, or an --endpoint")
        if bool(self.endpoint) != bool(self.endpoint_model):
            raise ConfigError("--endpoint and --endpoint-model go together", fix="give both or neither")
        if self.endpoint and self.sampling.top_k:
            raise ConfigError("an endpoint takes no top-k", where="--top-k", fix="use --top-p, or drop the endpoint")

    @property
    def decoding(self) -> dict[str, Any]:
        """The settings that determine an answer of a model, as manifests and reports hold them."""
        drawn = {"seed": self.seed, "dtype": self.dtype, "backend": self.rollout.backend}
        return {**self.sampling.model_dump(exclude={"batch_size", "stop"}), **drawn}

    def on(self, device: str) -> SampleOptions:
        """The options with the dtype that "auto" means on this type of device."""
        auto: Dtype = "float32" if device == "cpu" else "bfloat16"
        return replace(self, dtype=auto) if self.dtype == "auto" else self
