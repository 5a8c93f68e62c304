"""Models of random weights, batches of random ids, clocks and peaks for the parts of the GPU benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gpu_setting import Setting
from memory import PeakMemory
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.config.schema import StageConfig
from rlhf.data.encode import EncodedPrompt, EncodedRanking, EncodedSequence
from rlhf.data.records import Message
from rlhf.models.attention_choice import KernelSupport, allow_cudnn, head_size, varlen_obstacle
from rlhf.models.head import install_head
from rlhf.models.loading import ATTENTION, DTYPES, PackedCausalLM, PackedScalarModel
from rlhf.plan.roles import plan_memory, stage_shapes
from rlhf.plan.states import Placement

FIRST_ID = 2  # after EOS and PAD


@dataclass
class Bench:
    """One part's process: its setting, device and peak of memory."""

    setting: Setting
    device: torch.device
    memory: PeakMemory = field(default_factory=PeakMemory)

    def __post_init__(self) -> None:
        allow_cudnn(False)
        torch.manual_seed(0)
        self.random = np.random.default_rng(17)

    def obstacle(self) -> str:
        """Why the variable-length kernel cannot run here; empty where it can."""
        config = AutoConfig.from_pretrained(self.setting.folder)
        return varlen_obstacle(head_size(config), DTYPES[self.setting.dtype], KernelSupport.on(self.device))

    def attention(self) -> str:
        """The kernel that `model.attention=auto` takes."""
        return "sdpa" if self.obstacle() else "varlen"

    def language(self, attention: str) -> PackedCausalLM:
        wrapped = PackedCausalLM(self._random(AutoModelForCausalLM, attention))
        install_head(wrapped.model, "chunked")
        return wrapped

    def scalar(self, attention: str) -> PackedScalarModel:
        return PackedScalarModel(self._random(AutoModelForSequenceClassification, attention, num_labels=1))

    def _random(self, auto: Any, attention: str, **options: Any) -> Any:
        config = AutoConfig.from_pretrained(self.setting.folder, **options)
        with self.device:
            return auto.from_config(config, dtype=DTYPES[self.setting.dtype], attn_implementation=ATTENTION[attention])

    def ids(self, count: int) -> Any:
        return self.random.integers(FIRST_ID, self.setting.sizes.vocabulary, count).astype(np.int32)

    def sequences(self) -> list[EncodedSequence]:
        """Of a quarter to the whole of the longest length; every token but the first has a loss."""
        sizes = self.setting.sizes
        lengths = self.random.integers(sizes.longest // 4, sizes.longest + 1, sizes.sequences)
        return [EncodedSequence(self.ids(length), np.arange(length) > 0, "x") for length in lengths]

    def rankings(self) -> list[EncodedRanking]:
        """A prompt of a quarter of the longest length, and answers of one length."""
        sizes, ranks = self.setting.sizes, tuple(range(1, self.setting.sizes.answers + 1))
        return [
            EncodedRanking(self.ids(sizes.longest // 4), tuple(self.ids(sizes.answer) for _ in ranks), ranks)
            for _ in range(sizes.rankings)
        ]

    def prompts(self, count: int) -> list[EncodedPrompt]:
        asked = (Message("user", "질문"),)
        return [EncodedPrompt(self.ids(self.setting.sizes.prompt), row, asked) for row in range(count)]

    def timed(self, action: Callable[[], Any]) -> float:
        """Wall-clock seconds until the device has finished, too."""
        self.wait()
        started = time.perf_counter()
        action()
        self.wait()
        return time.perf_counter() - started

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak(self, config: StageConfig) -> dict[str, float]:
        """`held`, beside the plan of the configuration."""
        kind = "gpu" if self.device.type == "cuda" else "cpu"
        plan = plan_memory(config, stage_shapes(config), Placement(1, kind, self.setting.dtype))
        return {**self.held(), "planned_bytes": float(plan.peak)}

    def held(self) -> dict[str, float]:
        """Most bytes of the card this process held, with its CUDA context; on a CPU: resident, above the start."""
        found = {"peak_bytes": self.memory.peak_mib() * 2**20}
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            reserved, most = torch.cuda.memory_reserved(self.device), torch.cuda.max_memory_reserved(self.device)
            found["peak_bytes"] = float(total - free - reserved + most)
            found["allocated_bytes"] = float(torch.cuda.max_memory_allocated(self.device))
        return found
