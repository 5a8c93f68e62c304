"""A run of LLaMA-Factory or ms-swift by its own entry point, with its steps timed and its work counted.

peer.py {lf,swift} RESULT ARGUMENTS.json: runs in the peer's environment, alone or under torch.distributed.run
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


def without_sound() -> None:
    """LLaMA-Factory imports torchaudio, which has no build for this torch, and uses it for sound alone."""
    module = ModuleType("torchaudio")
    module.__spec__ = ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = module


class Record:
    """When training began and each step ended, what each forward pass of training was given, and the losses."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.work = {"sequences": 0, "tokens": 0, "answer_tokens": 0}

    def watch_events(self) -> None:
        from transformers.trainer_callback import CallbackHandler

        call = CallbackHandler.call_event

        def seen(handler: Any, event: str, *words: Any, **named: Any) -> Any:
            if event in ("on_train_begin", "on_step_end"):
                self.seconds.append(time.perf_counter())
            logs = named.get("logs") or {}
            if event == "on_log" and "loss" in logs:
                self.losses.append(float(logs["loss"]))
            return call(handler, event, *words, **named)

        CallbackHandler.call_event = seen

    def watch_steps(self) -> None:
        from transformers import Trainer

        step = Trainer.training_step

        def counted(trainer: Any, model: Any, inputs: dict[str, Any], *words: Any, **named: Any) -> Any:
            self.count(inputs, getattr(trainer.processing_class, "pad_token_id", None))
            return step(trainer, model, inputs, *words, **named)

        Trainer.training_step = counted

    def count(self, inputs: dict[str, Any], pad: int | None) -> None:
        """Ids that are no padding, and labels that count. Packed rows have padding that their mask lets through."""
        ids = inputs.get("input_ids")
        if ids is None:
            return
        self.work["sequences"] += len(ids)
        self.work["tokens"] += int((ids != pad).sum()) if pad is not None else ids.numel()
        if inputs.get("labels") is not None:
            self.work["answer_tokens"] += int((inputs["labels"] != -100).sum())

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"seconds": self.seconds, "losses": self.losses, "work": self.work}))


def main() -> None:
    name, result, source = sys.argv[1:]
    arguments = json.loads(Path(source).read_text())
    if name == "lf":
        without_sound()
    record = Record()
    record.watch_events()
    record.watch_steps()
    if name == "lf":
        from llamafactory.train.tuner import run_exp

        run_exp(arguments)
    else:
        from swift.pipelines import rlhf_main, sft_main

        words = [word for key, value in arguments.items() for word in (f"--{key}", _word(value))]
        (rlhf_main if "rlhf_type" in arguments else sft_main)(words)
    if os.environ.get("RANK", "0") == "0":
        record.write(Path(result))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
