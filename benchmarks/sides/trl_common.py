"""What the TRL sides share: the clock of a run, and settings that both sides have alike. Runs in TRL's environment."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

ALIKE: dict[str, Any] = {
    "num_train_epochs": 1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "max_length": 256,
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--mode", choices=("padded", "grouped", "packed"), required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--save")
    return parser.parse_args()


class Clock(TrainerCallback):
    """When training began and each optimizer step ended, and what the collator handed to each."""

    def __init__(self, count: Any) -> None:
        self._count = count
        self.seconds: list[float] = []
        self.amounts: list[dict[str, int]] = []

    def collator(self, collate: Any) -> Any:
        def counted(examples: list[dict[str, Any]]) -> Any:
            batch = collate(examples)
            self.amounts.append(self._count(examples, batch))
            return batch

        return counted

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter())

    def write(self, path: Path, **more: Any) -> None:
        path.write_text(json.dumps({"seconds": self.seconds, "amounts": self.amounts, **more}))
