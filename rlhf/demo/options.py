"""What the demo makes: the flags of `rlhf base tiny` and `rlhf quickstart`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf.config.flags import flag


@dataclass(frozen=True, slots=True)
class TinySize:
    """Shape and training of the tiny base model."""

    hidden: int = flag(192, "hidden size")
    layers: int = flag(4, "number of layers")
    heads: int = flag(4, "number of attention heads")
    vocabulary: int = flag(0, "vocabulary size; 0 chooses one by the amount of text")
    positions: int = 1024
    epochs: float = flag(2.0, "passes over the text")
    batch_size: int = 8
    lr: float = flag(2e-3, "peak learning rate")


@dataclass(slots=True)
class QuickstartOptions:
    """Where the runs go and what they read."""

    out: Path = flag(Path("runs/q"), "folder of the runs", metavar="RUN", shown="runs/q")
    data: Path | None = flag(
        None, "your own DIR/{sft,preference,prompts}_{train,dev}.jsonl instead of the embedded data", metavar="DIR"
    )
    seed: int = flag(17, "seed of every stage")
    lora: bool = flag(False, "train adapters on one base model, which the roles of PPO then share (ppo.roles=shared)")
    estimator: Literal["gae", "grpo"] = flag("gae", "advantages of stage 3: from a critic (PPO), or of groups (GRPO)")
    max_steps: int | None = flag(
        None, "end every stage after N steps: tries the installation in a minute, and its models learn nothing", least=1
    )
    arms: bool = flag(
        False,
        "then compare best-of-n distilled, DPO, PPO and GRPO from the SFT model, as `rlhf arms` does, in RUN/arms",
    )
