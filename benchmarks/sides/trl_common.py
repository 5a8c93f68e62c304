"""What the TRL sides share: the clock of a run, and settings that both sides have alike. Runs in TRL's environment."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from memory import PeakMemory
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


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the trainer's configuration that both sides and both stages have."""
    return {
        "output_dir": str(arguments.result.parent / "trl"),
        "per_device_train_batch_size": arguments.batch,
        "learning_rate": arguments.lr,
        "seed": arguments.seed,
        "max_steps": arguments.max_steps,
        **ALIKE,
    }


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

    def run(self, trainer: Any, arguments: argparse.Namespace, memory: PeakMemory) -> None:
        """Trains under this clock, saves where that is asked for, and writes what was measured."""
        trainer.data_collator = self.collator(trainer.data_collator)
        trainer.add_callback(self)
        loss = trainer.train().training_loss  # the mean over all steps
        if arguments.save:
            trainer.save_model(arguments.save)
        found = {
            "seconds": self.seconds, "amounts": self.amounts, "train_loss": loss, "peak_mib": memory.peak_mib()
        }  # fmt: skip
        arguments.result.write_text(json.dumps(found))
