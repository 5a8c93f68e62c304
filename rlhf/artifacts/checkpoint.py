"""Checkpoints that are complete or absent.

A checkpoint is written into a folder with another name, flushed, then renamed; the pointer moves after that, and
older ones go last. At every moment the pointer names a complete checkpoint or none.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhf.artifacts.files import flush_folder, flush_tree, read_json, write_json, write_text
from rlhf.engine.ranks import Ranks
from rlhf.errors import CheckpointError

STATE_FILE = "trainer.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint: its folder, and the trainer state saved in it."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])


class CheckpointStore:
    """The checkpoints of one run. Every method is called by all ranks together."""

    def __init__(self, folder: Path, ranks: Ranks, *, keep_last: int) -> None:
        self._folder, self._ranks, self._keep_last = folder, ranks, keep_last

    def save(self, step: int, state: dict[str, Any], write: Callable[[Path], None], *, best: bool = False) -> None:
        """Saves `state` (JSON) and what every rank's `write(folder)` leaves; `best` keeps it from being pruned.

        Which checkpoint is best is part of the state, so that it moves together with `latest`.
        """
        final = self._path(step)
        before = self.latest()
        assert before is None or before.path != final, f"{final} is saved already"
        best_name = final.name if best else None if before is None else before.state["best"]
        writing = self._folder / f".writing-{final.name}"
        if self._ranks.is_main:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
        self._ranks.barrier()
        write(writing)
        torch.save(random_state(), writing / f"random-{self._ranks.rank:04d}.pt")
        self._ranks.barrier()
        if self._ranks.is_main:
            whole = {**state, "step": step, "best": best_name, "world_size": self._ranks.world_size}
            write_json(writing / STATE_FILE, whole)
            flush_tree(writing)
            if final.exists():  # left by a crash after its rename and before the pointer moved
                shutil.rmtree(final)
            writing.rename(final)
            flush_folder(self._folder)
            write_text(self._folder / "latest", final.name)
            self._prune(step)
        self._ranks.barrier()

    def latest(self) -> Checkpoint | None:
        """The newest complete checkpoint, or None."""
        pointer = self._folder / "latest"
        return self._named(pointer.read_text(encoding="utf-8").strip()) if pointer.is_file() else None

    def require_latest(self) -> Checkpoint:
        """The newest complete checkpoint.

        Raises: CheckpointError when there is none.
        """
        checkpoint = self.latest()
        if checkpoint is None:
            raise CheckpointError(f"{self._folder} holds no complete checkpoint", fix="start without --resume")
        return checkpoint

    def best(self) -> Checkpoint | None:
        """The checkpoint that was best when the newest was saved, or None."""
        latest = self.latest()
        return None if latest is None or latest.state["best"] is None else self._named(latest.state["best"])

    def before(self, step: int) -> Checkpoint | None:
        """The newest complete checkpoint of a step below `step`, or None; the same on every rank."""

        def find() -> Checkpoint | None:
            latest = self.latest()
            limit = min(step, 0 if latest is None else latest.step + 1)
            saved = {int(path.name.removeprefix("step-")): path for path in self._folder.glob("step-*")}
            numbers = [number for number in saved if number < limit and (saved[number] / STATE_FILE).is_file()]
            return self._named(saved[max(numbers)].name) if numbers else None

        return self._ranks.from_main(find() if self._ranks.is_main else None)

    def rewind(self, checkpoint: Checkpoint) -> None:
        """Makes an older checkpoint the newest one; those after it are removed."""
        self._ranks.barrier()
        if self._ranks.is_main:
            write_text(self._folder / "latest", checkpoint.path.name)
            self._prune(checkpoint.step)
        self._ranks.barrier()

    def restore_random(self, checkpoint: Checkpoint) -> None:
        """Every generator of this rank, as it was."""
        path = checkpoint.path / f"random-{self._ranks.rank:04d}.pt"
        set_random_state(torch.load(path, weights_only=False))

    def require_same_world(self, checkpoint: Checkpoint, zero_stage: int) -> None:
        """Raises CheckpointError when ranks or ZeRO stage differ from those that saved it."""
        saved = (checkpoint.state["world_size"], checkpoint.state["zero_stage"])
        if saved != (self._ranks.world_size, zero_stage):
            raise CheckpointError(
                f"{checkpoint.path} was saved by {saved[0]} ranks at ZeRO {saved[1]}; this run has "
                f"{self._ranks.world_size} at ZeRO {zero_stage}",
                fix=f"start {saved[0]} ranks with deepspeed.zero_stage={saved[1]}",
            )

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}"

    def _named(self, name: str) -> Checkpoint:
        path = self._folder / name
        if not (path / STATE_FILE).is_file():
            raise CheckpointError(f"{path} is not complete", fix="restore that folder, or start a new run")
        return Checkpoint(path, read_json(path / STATE_FILE))

    def _prune(self, step: int) -> None:
        """Removes older checkpoints and what a crash left ahead of the pointer, but nothing a pointer names."""
        named = {pointed.path for pointed in (self.latest(), self.best()) if pointed is not None}
        saved = sorted((int(path.name.removeprefix("step-")), path) for path in self._folder.glob("step-*"))
        older = [path for number, path in saved if number <= step]
        ahead = [path for number, path in saved if number > step]
        for path in [*older[: -self._keep_last], *ahead]:
            if path not in named:
                shutil.rmtree(path)


def random_state() -> dict[str, Any]:
    """State of Python's, NumPy's and torch's generators."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
